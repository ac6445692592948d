//! The second level in a Redis that several processes share. The keys stand under one hash-tagged prefix, so
//! that they lie beside the queue's on a cluster.

use std::time::Duration;

use embeddery_core::BoxFuture;
use redis::{
    AsyncCommands as _, Client,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::sync::OnceCell;

use super::{Key, LevelError, SecondLevel};

/// Keys that one SCAN step looks at when the cache is cleared.
const SCAN: usize = 1000;

/// A cache in Redis.
pub struct RedisLevel {
    client: Client,
    prefix: String,
    /// Made at first use, mends itself afterwards: a Redis that is away at the start may come later.
    connection: OnceCell<ConnectionManager>,
}

impl RedisLevel {
    /// For the Redis at `url`; keys begin with `prefix`. Does not connect yet.
    ///
    /// # Errors
    /// When the address is none.
    pub fn new(url: &str, prefix: &str) -> Result<Self, LevelError> {
        let client = Client::open(url).map_err(failed)?;
        Ok(Self { client, prefix: format!("{prefix}:cache:v1:"), connection: OnceCell::new() })
    }

    async fn connection(&self) -> Result<ConnectionManager, LevelError> {
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_connection_timeout(Some(Duration::from_secs(2)))
            .set_response_timeout(Some(Duration::from_secs(2)));
        let made = self.connection.get_or_try_init(|| self.client.get_connection_manager_with_config(config));
        Ok(made.await.map_err(failed)?.clone())
    }

    fn name(&self, key: &Key) -> Vec<u8> {
        [self.prefix.as_bytes(), key].concat()
    }
}

impl SecondLevel for RedisLevel {
    fn get<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Vec<Option<Vec<u8>>>, LevelError>> {
        Box::pin(async move {
            let names: Vec<_> = keys.iter().map(|key| self.name(key)).collect();
            self.connection().await?.mget(names).await.map_err(failed)
        })
    }

    fn put(&self, entries: Vec<(Key, Vec<u8>)>, ttl: Duration) -> BoxFuture<'_, Result<(), LevelError>> {
        Box::pin(async move {
            let mut pipe = redis::pipe();
            for (key, value) in entries {
                pipe.set_ex(self.name(&key), value, ttl.as_secs().max(1)).ignore();
            }
            let mut connection = self.connection().await?;
            pipe.query_async(&mut connection).await.map_err(failed)
        })
    }

    fn clear(&self) -> BoxFuture<'_, Result<u64, LevelError>> {
        Box::pin(async move {
            let mut connection = self.connection().await?;
            let pattern = format!("{}*", self.prefix);
            let (mut cursor, mut removed) = (0_u64, 0);
            loop {
                let mut scan = redis::cmd("SCAN");
                scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN);
                let (next, names): (u64, Vec<Vec<u8>>) =
                    scan.query_async(&mut connection).await.map_err(failed)?;
                if !names.is_empty() {
                    removed += connection.unlink::<_, u64>(names).await.map_err(failed)?;
                }
                cursor = next;
                if cursor == 0 {
                    return Ok(removed);
                }
            }
        })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
fn failed(error: redis::RedisError) -> LevelError {
    // The category and not the whole text: an address may hold a password.
    LevelError(format!("Redis: {}", error.category()))
}
