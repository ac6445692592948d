//! Errors of Redis commands.

use redis::{ErrorKind, RedisError, ServerErrorKind};
use thiserror::Error;

/// Why a command failed. The message names the server and holds no password.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommandError {
    /// Redis is unreachable, is too slow, or refuses the connection. A later attempt may succeed.
    #[error("{0}")]
    Unavailable(String),
    /// Redis has no memory left, or its disk is full.
    #[error("{0}")]
    Full(String),
    /// Redis rejected the command, or its response has an unexpected form.
    #[error("{0}")]
    Rejected(String),
}

impl CommandError {
    /// Classifies an error of the server at `address`.
    pub(super) fn from_redis(error: &RedisError, address: &str) -> Self {
        let text = format!("Redis at {address}: {error}");
        match (error.code(), error.kind()) {
            (Some("OOM"), _) => Self::Full(format!("{text}; give it more memory (maxmemory)")),
            (Some("MISCONF"), _) => Self::Full(format!("{text}; free space on its disk")),
            (_, ErrorKind::Server(ServerErrorKind::ResponseError)) if error.code() != Some("NOAUTH") => {
                Self::Rejected(text)
            }
            (_, ErrorKind::UnexpectedReturnType | ErrorKind::Parse) => Self::Rejected(text),
            _ => Self::Unavailable(text),
        }
    }
}
