//! Checks of a Redis that may lose or evict the queue. Each finding names the setting that corrects it.

use redis::{AsyncCommands as _, RedisResult, Value, from_redis_value};

use super::topology::{Connection, forbidden};

/// Findings about the durability of each server, each with the setting that corrects it. If the user may not run
/// `CONFIG`, the checks use `INFO` alone.
///
/// # Errors
/// If a server is unreachable.
pub async fn durability_findings(connection: &mut Connection) -> RedisResult<Vec<String>> {
    let mut found = Vec::new();
    let infos = match infos(connection).await {
        Err(error) if forbidden(&error) => {
            return Ok(vec![
                "the Redis user may not run INFO, so the durability of the queue is unknown; allow the command INFO".into(),
            ]);
        }
        infos => infos?,
    };
    for (server, info) in infos {
        found.extend(check_info(&info).into_iter().map(|finding| format!("{server}{finding}")));
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// The `INFO` response of each server, with the server's name if there are several.
async fn infos(connection: &mut Connection) -> RedisResult<Vec<(String, String)>> {
    match connection {
        Connection::Standalone(connection) => {
            let info: String = redis::cmd("INFO").query_async(connection).await?;
            let fsync: RedisResult<Vec<String>> =
                redis::cmd("CONFIG").arg("GET").arg("appendfsync").query_async(connection).await;
            let fsync = fsync.ok().and_then(|pair| pair.get(1).cloned()).unwrap_or_default();
            Ok(vec![(String::new(), format!("{info}\r\nappendfsync:{fsync}\r\n"))])
        }
        Connection::Cluster(connection) => {
            let _: () = connection.ping().await?;
            let value: Value = redis::cmd("INFO").query_async(connection).await?;
            Ok(match value {
                Value::Map(servers) => servers
                    .into_iter()
                    .filter_map(|(server, info)| {
                        let server: String = from_redis_value(server).ok()?;
                        Some((format!("{server}: "), from_redis_value(info).ok()?))
                    })
                    .collect(),
                other => vec![(String::new(), from_redis_value(other)?)],
            })
        }
    }
}

fn check_info(info: &str) -> Vec<String> {
    let field = |name: &str| {
        info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':')).unwrap_or("")
    };
    let mut found = Vec::new();
    let version = field("redis_version");
    let major: Option<u32> = version.split('.').next().and_then(|major| major.parse().ok());
    if major.is_some_and(|major| major < 7) {
        found.push(format!("Redis {version} is too old for the queue; run 7.0 or newer"));
    }
    if field("aof_enabled") == "0" && field("role") != "slave" {
        found.push(
            "Redis loses acknowledged work when it restarts, because it writes no append-only file; start it with \
             `appendonly yes`"
                .into(),
        );
    }
    if field("appendfsync") == "no" {
        found.push(
            "Redis lets the system decide when its file is written to the disk, so a power cut may lose half a minute; \
             set `appendfsync everysec`"
                .into(),
        );
    }
    if field("aof_last_write_status") == "err" {
        found.push("Redis cannot write its append-only file; check its log and its disk".into());
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
    use super::check_info;

    #[test]
    fn each_finding_names_the_setting() {
        let good = "redis_version:7.0.15\r\nrole:master\r\naof_enabled:1\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\naof_last_write_status:ok\r\nappendfsync:everysec\r\n";
        assert_eq!(check_info(good), Vec::<String>::new());
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
            let found = check_info(&good.replace(was, is));
            assert!(found.len() == 1 && found[0].contains(due), "{is}: {found:?}");
        }
        assert!(
            check_info(&good.replace("noeviction", "allkeys-lru")).is_empty(),
            "without a limit nothing is evicted"
        );
    }
}
