//! The caller's quota of stored vectors: taken before vectors are made, and counted anew after whatever may have
//! changed what is stored, and before anybody is refused: who died in the middle has left a count that is too high.
//! Two writes at the same moment may pass a limit by what one of them adds; the next count sees both.

use embeddery_accounts::ledger::Counter;
use embeddery_pipeline::stages::count_vectors;

use super::CollectionService;
use crate::error::ApiError;

impl CollectionService {
    /// Takes room for so many new vectors, or says that there is none; by a count that is right.
    pub(super) async fn take_room(&self, vectors: usize) -> Result<(), ApiError> {
        let user = &self.metered.identity.user;
        let take = || self.app.accounts.ledger.acquire(user, Counter::StoredVectors, vectors as u64);
        if vectors > 0 && take().await.is_err() {
            self.recount().await;
            take().await?;
        }
        Ok(())
    }

    /// Counts what the caller has stored. A store that cannot be asked leaves the count as it was.
    pub(crate) async fn recount(&self) {
        if let Some(vectors) = count_vectors(self.store(), self.tenant()).await {
            self.app.accounts.ledger.set(&self.metered.identity.user, Counter::StoredVectors, vectors).await;
        }
    }
}
