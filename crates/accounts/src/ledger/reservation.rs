//! Tokens that are reserved for a request in progress.

use super::{Ledger, UsageRecord, token_quota};
use crate::UserId;
use jiff::Timestamp;

/// Reserved tokens. [`settle`](Self::settle) replaces them by the real usage; dropping the reservation returns them.
#[must_use = "dropping a reservation returns its tokens"]
pub struct Reservation<'a> {
    ledger: &'a Ledger,
    user: UserId,
    id: Option<i64>,
}

impl<'a> Reservation<'a> {
    /// A reservation without a quota: nothing is reserved, but usage is recorded.
    pub(super) fn unlimited(ledger: &'a Ledger, user: &UserId) -> Self {
        Self { ledger, user: user.clone(), id: None }
    }

    pub(super) fn held(ledger: &'a Ledger, user: &UserId, id: i64) -> Self {
        Self { ledger, user: user.clone(), id: Some(id) }
    }

    /// Marks the reservation as not held, so that dropping it returns nothing.
    pub(super) fn forget(&mut self) {
        self.id = None;
    }

    /// Replaces the reservation by the usage of the request. The usage is on disk when this returns.
    pub async fn settle(mut self, usage: UsageRecord) {
        let cost_nanodollars = self.ledger.cost_nanodollars(&usage);
        let (user, id) = (self.user.shared(), self.id.take());
        let entry = token_quota::Settle { user, reservation: id, usage, cost_nanodollars };
        let settle = move |db: &_| token_quota::settle(db, &entry, Timestamp::now());
        // The writer logs a failure. The response is sent nevertheless.
        let _ = self.ledger.writer.run(settle).await;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.ledger.writer.run_later(move |db| token_quota::refund(db, id));
        }
    }
}
