//! Dead letters: tasks that are set aside for the operator.

use crate::{Reason, Task};

/// Identifies a dead letter within its stage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeadLetterId(pub String);

/// A task that was set aside.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// Its id.
    pub id: DeadLetterId,
    /// The task as it was; `None` when its message could not be read.
    pub task: Option<Task>,
    /// The message as it was found; `None` when it could be read.
    pub raw: Option<Vec<u8>>,
    /// Why the task was set aside.
    pub reason: Reason,
    /// When it was set aside, in milliseconds since 1970.
    pub at_ms: u64,
}
