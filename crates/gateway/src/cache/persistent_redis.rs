//! The persistent cache in a Redis that several processes share. All keys have the hash tag of the installation's prefix,
//! so that on a Cluster they are on one node.

use std::time::Duration;

use embeddery_core::BoxFuture;
use embeddery_database::redis::{
    CommandError, ConnectionOptions, DurabilityCheck, RedisAddress, SharedConnection,
};
use redis::{Cmd, Script};

use super::{CacheError, Key, PersistentCache};

/// Maximum time to connect, and to a response.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Keys that one step of the clearing looks at.
const SCAN_COUNT: usize = 1000;

/// One step of the clearing, as a script: it runs on the node that has the keys. KEYS: any key of the cache. ARGV: the
/// cursor, the pattern, and how many keys to look at. Returns the next cursor and how many keys were removed.
const CLEAR: &str = r"
local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local removed = 0
for _, key in ipairs(page[2]) do removed = removed + redis.call('UNLINK', key) end
return { page[1], removed }
";

/// A persistent cache in Redis.
pub struct RedisCache {
    connection: SharedConnection,
    /// The start of every key.
    prefix: String,
    clear: Script,
}

impl RedisCache {
    /// A cache in this Redis. It connects at the first use, so the process starts without Redis.
    ///
    /// # Errors
    /// If the address is invalid.
    pub fn new(address: &RedisAddress) -> Result<Self, String> {
        let options = ConnectionOptions {
            connect_timeout: TIMEOUT,
            response_timeout: TIMEOUT,
            durability: DurabilityCheck::Skip,
        };
        Ok(Self {
            connection: SharedConnection::new(address.topology()?, options),
            prefix: format!("{}:", address.prefix.key(&["cache", "v1"])),
            clear: Script::new(CLEAR),
        })
    }

    fn key(&self, key: &Key) -> Vec<u8> {
        [self.prefix.as_bytes(), key].concat()
    }
}

impl PersistentCache for RedisCache {
    fn get<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Vec<Option<Vec<u8>>>, CacheError>> {
        Box::pin(async move {
            let names: Vec<_> = keys.iter().map(|key| self.key(key)).collect();
            Ok(self.connection.query(&Cmd::mget(names)).await?)
        })
    }

    fn put(&self, entries: Vec<(Key, Vec<u8>)>, ttl: Duration) -> BoxFuture<'_, Result<(), CacheError>> {
        Box::pin(async move {
            let mut pipeline = redis::pipe();
            for (key, value) in entries {
                pipeline.set_ex(self.key(&key), value, ttl.as_secs().max(1)).ignore();
            }
            Ok(self.connection.query_pipeline(&pipeline).await?)
        })
    }

    fn clear(&self) -> BoxFuture<'_, Result<u64, CacheError>> {
        Box::pin(async move {
            let pattern = format!("{}*", escape_glob(&self.prefix));
            let (mut cursor, mut removed) = ("0".to_owned(), 0);
            loop {
                let mut step = self.clear.key(&self.prefix);
                step.arg(&cursor).arg(&pattern).arg(SCAN_COUNT);
                let response = self.connection.invoke(&step).await?;
                let (next, count): (String, u64) =
                    response.map_err(|error| self.connection.describe(&error))?;
                removed += count;
                cursor = next;
                if cursor == "0" {
                    return Ok(removed);
                }
            }
        })
    }
}

/// The text as a pattern of SCAN that matches only itself.
fn escape_glob(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if "*?[]^-\\".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

impl From<CommandError> for CacheError {
    fn from(error: CommandError) -> Self {
        Self(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(escape_glob("{a*[b]?}:"), "{a\\*\\[b\\]\\?}:");
    }
}
