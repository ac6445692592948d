//! What could lose or evict work in a Redis, each with the setting that mends it.

use redis::{AsyncCommands as _, RedisResult, Value, from_redis_value};

use super::target::{Conn, forbidden};

/// Looks at every server. `INFO` is allowed where `CONFIG` is not.
pub(super) async fn findings(connection: &mut Conn) -> RedisResult<Vec<String>> {
    let mut found = Vec::new();
    let infos = match infos(connection).await {
        Err(error) if forbidden(&error) => {
            return Ok(vec![
                "Redis does not let this user ask whether work is safe there; allow the command INFO".into(),
            ]);
        }
        infos => infos?,
    };
    for (server, about) in infos {
        found.extend(judge(&about).into_iter().map(|finding| format!("{server}{finding}")));
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// What each server says of itself, under its name when there are several.
async fn infos(connection: &mut Conn) -> RedisResult<Vec<(String, String)>> {
    match connection {
        Conn::One(connection) => {
            let about: String = redis::cmd("INFO").query_async(connection).await?;
            let fsync: RedisResult<Vec<String>> =
                redis::cmd("CONFIG").arg("GET").arg("appendfsync").query_async(connection).await;
            let fsync = fsync.ok().and_then(|pair| pair.get(1).cloned()).unwrap_or_default();
            Ok(vec![(String::new(), format!("{about}\r\nappendfsync:{fsync}\r\n"))])
        }
        Conn::Cluster(connection) => {
            let _: () = connection.ping().await?;
            let value: Value = redis::cmd("INFO").query_async(connection).await?;
            Ok(match value {
                Value::Map(servers) => servers
                    .into_iter()
                    .filter_map(|(server, about)| {
                        let server: String = from_redis_value(server).ok()?;
                        Some((format!("{server}: "), from_redis_value(about).ok()?))
                    })
                    .collect(),
                other => vec![(String::new(), from_redis_value(other)?)],
            })
        }
    }
}

fn judge(about: &str) -> Vec<String> {
    let field = |name: &str| {
        about.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':')).unwrap_or("")
    };
    let mut found = Vec::new();
    let version = field("redis_version");
    let major: Option<u32> = version.split('.').next().and_then(|major| major.parse().ok());
    if major.is_some_and(|major| major < 7) {
        found.push(format!("Redis {version} is too old for the queue; run 7.0 or newer"));
    }
    if field("aof_enabled") == "0" && field("role") != "slave" {
        found.push(
            "Redis forgets acknowledged work when it restarts, because it writes no append-only file; start it with \
             `appendonly yes`"
                .into(),
        );
    }
    if field("appendfsync") == "no" {
        found.push(
            "Redis leaves it to the system when its file reaches the disk: a power cut may lose half a minute; set \
             `appendfsync everysec`"
                .into(),
        );
    }
    if field("aof_last_write_status") == "err" {
        found.push("Redis cannot write its append-only file; look at its log and at its disk".into());
    }
    let (policy, limit) = (field("maxmemory_policy"), field("maxmemory"));
    if policy.starts_with("allkeys") && limit != "0" {
        found.push(format!(
            "Redis evicts work when its memory is full (maxmemory-policy {policy}); set `maxmemory-policy noeviction`, \
             or give the queue a Redis of its own (queue.redis_url)"
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn each_danger_is_named_with_its_setting() {
        let good = "redis_version:7.0.15\r\nrole:master\r\naof_enabled:1\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\naof_last_write_status:ok\r\nappendfsync:everysec\r\n";
        assert_eq!(judge(good), Vec::<String>::new());
        for (is, was, due) in [
            ("aof_enabled:0", "aof_enabled:1", "appendonly yes"),
            (
                "maxmemory:9\r\nmaxmemory_policy:allkeys-lru",
                "maxmemory:0\r\nmaxmemory_policy:noeviction",
                "noeviction",
            ),
            ("status:err", "status:ok", "cannot write"),
            ("redis_version:6.2.1", "redis_version:7.0.15", "7.0 or newer"),
            ("appendfsync:no", "appendfsync:everysec", "appendfsync everysec"),
        ] {
            let found = judge(&good.replace(was, is));
            assert!(found.len() == 1 && found[0].contains(due), "{is}: {found:?}");
        }
        assert!(
            judge(&good.replace("noeviction", "allkeys-lru")).is_empty(),
            "without a limit nothing is evicted"
        );
    }
}
