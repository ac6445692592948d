//! The caller's quota of stored vectors: taken before vectors are made, and counted anew after whatever may have
//! changed what is stored. Two writes at the same moment may pass a limit by what one of them adds; the next
//! count sees both.

use embeddery_accounts::ledger::Counter;

use super::Desk;
use crate::error::ApiError;

impl Desk {
    /// Takes room for so many new vectors, or says that there is none.
    pub(super) async fn take_room(&self, vectors: usize) -> Result<(), ApiError> {
        if vectors == 0 {
            return Ok(());
        }
        let user = &self.metered.identity.user;
        Ok(self.app.accounts.ledger.take(user, Counter::StoredVectors, vectors as u64).await?)
    }

    /// Counts what the caller has stored. A store that cannot be asked leaves the count as it was.
    pub(crate) async fn recount(&self) {
        let Ok(collections) = self.store().list(self.tenant()).await else { return };
        let mut vectors = 0;
        for collection in collections {
            match self.store().stats(self.place(&collection.name)).await {
                Ok(stats) => vectors += stats.counts.vectors,
                Err(error) if error.kind == embeddery_store::StoreErrorKind::NotFound => {}
                Err(_) => return,
            }
        }
        self.app.accounts.ledger.set(&self.metered.identity.user, Counter::StoredVectors, vectors).await;
    }
}
