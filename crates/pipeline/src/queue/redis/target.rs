//! Where Redis is: one server, a Cluster or what Sentinels watch over, told by the URL and by what answers there.
//!
//! `redis://[user:password@]host[:port][/db]`, `rediss://` with TLS; several hosts separated by commas are nodes of a
//! Cluster; `redis+sentinel://` or `rediss+sentinel://[user:password@]host[:port],…/service[/db]` asks Sentinels.

use std::time::Duration;

use base64::Engine as _;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo as _, RedisResult, TlsCertificates,
    TlsMode,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
    io::tcp::TcpSettings,
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};
use secrecy::{ExposeSecret as _, SecretString};

/// Where Redis is.
pub(super) enum Target {
    One(Box<One>),
    Cluster { nodes: Vec<ConnectionInfo>, ca: Option<Vec<u8>> },
    Sentinel(Box<tokio::sync::Mutex<SentinelClient>>),
}

/// A server; perhaps, as it turns out, one of a Cluster.
pub(super) struct One {
    client: Client,
    info: ConnectionInfo,
    ca: Option<Vec<u8>>,
}

/// A connection, whatever is behind it.
#[derive(Clone)]
pub(super) enum Conn {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

const CONNECT: Duration = Duration::from_secs(3);

const WRONG: &str = "is not a Redis URL; write redis://HOST:PORT/DB, rediss://USER:PASSWORD@HOST:PORT, several hosts \
                     separated by commas for a Cluster, or redis+sentinel://HOST:PORT,HOST:PORT/SERVICE";

impl Target {
    /// Reads a URL. `ca`: certificates in PEM that are trusted besides the system's. The
    /// error does not repeat the URL, which may hold a password.
    pub(super) fn read(url: &SecretString, ca: Option<&[u8]>) -> Result<Self, String> {
        let url = url.expose_secret().trim();
        let (scheme, rest) = url.split_once("://").ok_or(WRONG)?;
        let (login, rest) = rest.rsplit_once('@').map_or(("", rest), |(login, rest)| (login, rest));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (scheme, sentinel) =
            scheme.strip_suffix("+sentinel").map_or((scheme, false), |name| (name, true));
        if hosts.is_empty() || !["redis", "rediss"].contains(&scheme) {
            return Err(WRONG.into());
        }
        let ca = ca.filter(|_| scheme == "rediss");
        let node = |host: &str, db: &str| {
            let at = if login.is_empty() { "" } else { "@" };
            format!("{scheme}://{login}{at}{host}/{db}").into_connection_info().map_err(|_| WRONG.to_owned())
        };
        if sentinel {
            let (service, db) = path.split_once('/').unwrap_or((path, ""));
            if service.is_empty() {
                return Err(WRONG.into());
            }
            let nodes: Vec<_> =
                hosts.split(',').map(|host| node(&with_port(host), db)).collect::<Result<_, _>>()?;
            return sentinels(&nodes, service, ca).map(|client| Self::Sentinel(Box::new(client.into())));
        }
        let nodes: Vec<_> = hosts.split(',').map(|host| node(host, path)).collect::<Result<_, _>>()?;
        match <[_; 1]>::try_from(nodes) {
            Ok([info]) => {
                // A script of some hundred bytes must not wait for a packet to fill.
                let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
                let client = match ca {
                    Some(ca) => Client::build_with_tls(info.clone(), certificates(ca)),
                    _ => Client::open(info.clone()),
                };
                let client = client.map_err(|error| format!("cannot be used: {error}"))?;
                Ok(Self::One(Box::new(One { client, info, ca: ca.map(<[u8]>::to_vec) })))
            }
            Err(nodes) => Ok(Self::Cluster { nodes, ca: ca.map(<[u8]>::to_vec) }),
        }
    }

    /// Connects. `patience`: an answer that takes longer is none.
    pub(super) async fn connect(&self, patience: Duration) -> RedisResult<Conn> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(patience));
        match self {
            Self::One(one) => {
                let mut connection = one.client.get_multiplexed_async_connection_with_config(&config).await?;
                let about: RedisResult<String> =
                    redis::cmd("INFO").arg("cluster").query_async(&mut connection).await;
                let about = match about {
                    // Who may not ask has a server by itself, or names the nodes of his Cluster.
                    Err(error) if forbidden(&error) => String::new(),
                    about => about?,
                };
                if !about.contains("cluster_enabled:1") {
                    return Ok(Conn::One(connection));
                }
                let builder = cluster(vec![one.info.clone()], one.ca.as_deref());
                join(builder, patience).await
            }
            Self::Cluster { nodes, ca } => join(cluster(nodes.clone(), ca.as_deref()), patience).await,
            Self::Sentinel(client) => {
                let mut client = client.lock().await;
                client.get_async_connection_with_config(&config).await.map(Conn::One)
            }
        }
    }

    /// What a person knows it by; no password.
    pub(super) fn name(&self) -> String {
        match self {
            Self::One(one) => one.info.addr().to_string(),
            Self::Cluster { .. } => "the Cluster".into(),
            Self::Sentinel(_) => "the Sentinels".into(),
        }
    }
}

/// Whether the user that the URL names may not do that.
pub(super) fn forbidden(error: &redis::RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::NoPerm)
}

async fn join(builder: ClusterClientBuilder, patience: Duration) -> RedisResult<Conn> {
    let client: ClusterClient = builder.response_timeout(patience).build()?;
    client.get_async_connection().await.map(Conn::Cluster)
}

fn cluster(nodes: Vec<ConnectionInfo>, ca: Option<&[u8]>) -> ClusterClientBuilder {
    let builder = ClusterClientBuilder::new(nodes)
        .connection_timeout(CONNECT)
        .tcp_settings(TcpSettings::default().set_nodelay(true))
        .retries(5)
        .max_retry_wait(500);
    match ca {
        Some(ca) => builder.certs(certificates(ca)),
        None => builder,
    }
}

fn sentinels(nodes: &[ConnectionInfo], service: &str, ca: Option<&[u8]>) -> Result<SentinelClient, String> {
    let secure =
        matches!(nodes.first().map(ConnectionInfo::addr), Some(redis::ConnectionAddr::TcpTls { .. }));
    let settings = nodes.first().map(ConnectionInfo::redis_settings);
    let build = || {
        let addresses = nodes.iter().map(|node| node.addr().clone());
        let mut builder = SentinelClientBuilder::new(addresses, service, SentinelServerType::Master)?
            .set_client_to_redis_tcp_settings(TcpSettings::default().set_nodelay(true));
        if let Some(settings) = settings {
            builder = builder.set_client_to_redis_db(settings.db());
            if let Some(password) = settings.password() {
                builder = builder.set_client_to_redis_password(password);
            }
            if let Some(name) = settings.username() {
                builder = builder.set_client_to_redis_username(name);
            }
        }
        if secure {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
            if let Some(ca) = ca {
                builder = builder
                    .set_client_to_redis_certificates(certificates(ca))
                    .set_client_to_sentinel_certificates(certificates(ca));
            }
        }
        builder.build()
    };
    build().map_err(|error: redis::RedisError| format!("cannot be used: {error}"))
}

/// The client library trusts what it is given instead of the public authorities, so the system's are given, too.
fn certificates(ca: &[u8]) -> TlsCertificates {
    let mut roots = ca.to_vec();
    for certificate in rustls_native_certs::load_native_certs().certs {
        let text = base64::prelude::BASE64_STANDARD.encode(certificate);
        roots.extend(
            format!("\n-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n").into_bytes(),
        );
    }
    TlsCertificates { client_tls: None, root_cert: Some(roots) }
}

/// Sentinels listen on another port than servers do.
fn with_port(host: &str) -> String {
    let named = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if named { host.to_owned() } else { format!("{host}:26379") }
}

impl ConnectionLike for Conn {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a redis::Cmd) -> redis::RedisFuture<'a, redis::Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a redis::Pipeline,
        offset: usize,
        count: usize,
    ) -> redis::RedisFuture<'a, Vec<redis::Value>> {
        match self {
            Self::One(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_what_is_there() {
        let read = |url: &str| Target::read(&url.to_owned().into(), None);
        assert!(matches!(read("redis://h:1/2"), Ok(Target::One(_))));
        assert!(matches!(read(" rediss://u:p%40@h "), Ok(Target::One(_))));
        assert!(matches!(read("redis://:p@a:1,b:2"), Ok(Target::Cluster { .. })));
        assert!(matches!(read("redis+sentinel://a,b:2/main/3"), Ok(Target::Sentinel(_))));
        for wrong in ["", "h:1", "http://h", "redis://", "redis+sentinel://a,b", "redis://hunter2@h:port"] {
            let error = read(wrong).err().unwrap_or_else(|| panic!("{wrong} is accepted"));
            assert!(error.contains("is not a Redis URL") && !error.contains("hunter2"), "{error}");
        }
        assert_eq!(with_port("a"), "a:26379");
        assert_eq!(with_port("a:1"), "a:1");
    }
}
