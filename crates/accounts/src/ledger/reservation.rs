//! Tokens set aside for a request under way.

use super::{Ledger, UsageRecord, operations};
use crate::UserId;
use jiff::Timestamp;

/// Tokens set aside. Settled when the request is answered; dropped without that, they are given back.
#[must_use = "dropping it gives the tokens back"]
pub struct Reservation<'a> {
    ledger: &'a Ledger,
    user: UserId,
    id: Option<i64>,
}

impl<'a> Reservation<'a> {
    /// Where there is no quota there is nothing to hold; usage is written down all the same.
    pub(super) fn unlimited(ledger: &'a Ledger, user: &UserId) -> Self {
        Self { ledger, user: user.clone(), id: None }
    }

    pub(super) fn held(ledger: &'a Ledger, user: &UserId, id: i64) -> Self {
        Self { ledger, user: user.clone(), id: Some(id) }
    }

    /// There is nothing to give back.
    pub(super) fn forget(&mut self) {
        self.id = None;
    }

    /// Writes down what the request took. On return it is on disk.
    pub async fn settle(mut self, spent: UsageRecord) {
        let cost = self.ledger.cost(&spent);
        let (user, id) = (self.user.shared(), self.id.take());
        let settle = move |db: &_| operations::settle(db, (&user, id), (&spent, cost), Timestamp::now());
        // A failure is in the log, and the answer is not held back for it.
        let _ = self.ledger.writer.run(settle).await;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.ledger.writer.run_later(move |db| operations::refund(db, id));
        }
    }
}
