//! The topology of a Redis: a single server, a Cluster, or the master that Sentinels name. The URL says which, and a
//! single server says whether it belongs to a Cluster.
//!
//! | URL | topology |
//! |---|---|
//! | `redis://[user:password@]host[:port][/db]` | a single server, or any node of a Cluster |
//! | `redis://[user:password@]host[:port],host[:port],…` | nodes of a Cluster |
//! | `redis+sentinel://[user:password@]host[:port],…/service[/db]` | the master that the Sentinels name |
//!
//! `rediss://` and `rediss+sentinel://` use TLS.

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

/// Where the servers are and how they are found.
pub struct Topology(Kind);

enum Kind {
    Standalone(Box<Standalone>),
    Cluster { nodes: Vec<ConnectionInfo>, ca: Option<Vec<u8>> },
    Sentinel(Box<tokio::sync::Mutex<SentinelClient>>),
}

/// A single server, which may turn out to be a node of a Cluster.
struct Standalone {
    client: Client,
    info: ConnectionInfo,
    ca: Option<Vec<u8>>,
}

/// An open connection to a topology of any kind.
#[derive(Clone)]
pub enum Connection {
    /// To one server.
    Standalone(MultiplexedConnection),
    /// To the nodes of a Cluster.
    Cluster(ClusterConnection),
}

/// Maximum time to connect to one server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

const INVALID_URL: &str = "is not a Redis URL; write redis://HOST:PORT/DB, rediss://USER:PASSWORD@HOST:PORT, several hosts \
                     separated by commas for a Cluster, or redis+sentinel://HOST:PORT,HOST:PORT/SERVICE";

impl Topology {
    /// Parses a URL. `ca` holds certificates in PEM that are trusted in addition to the system's.
    ///
    /// # Errors
    /// If the URL or the certificates are invalid. The message does not repeat the URL, which may hold a password.
    pub fn parse(url: &SecretString, ca: Option<&[u8]>) -> Result<Self, String> {
        let url = url.expose_secret().trim();
        if url.starts_with("unix://") || url.starts_with("redis+unix://") {
            return Self::standalone(url.into_connection_info().map_err(|_| INVALID_URL.to_owned())?, None);
        }
        let (scheme, rest) = url.split_once("://").ok_or(INVALID_URL)?;
        let (login, rest) = rest.rsplit_once('@').map_or(("", rest), |(login, rest)| (login, rest));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (scheme, sentinel) =
            scheme.strip_suffix("+sentinel").map_or((scheme, false), |name| (name, true));
        let scheme = match scheme {
            "valkey" => "redis",
            "valkeys" => "rediss",
            other => other,
        };
        if hosts.is_empty() || !["redis", "rediss"].contains(&scheme) {
            return Err(INVALID_URL.into());
        }
        let ca = ca.filter(|_| scheme == "rediss");
        let node = |host: &str, db: &str| {
            let at = if login.is_empty() { "" } else { "@" };
            format!("{scheme}://{login}{at}{host}/{db}")
                .into_connection_info()
                .map_err(|_| INVALID_URL.to_owned())
        };
        if sentinel {
            let (service, db) = path.split_once('/').unwrap_or((path, ""));
            if service.is_empty() {
                return Err(INVALID_URL.into());
            }
            let nodes: Vec<_> =
                hosts.split(',').map(|host| node(&with_sentinel_port(host), db)).collect::<Result<_, _>>()?;
            let client = sentinel_client(&nodes, service, ca)?;
            return Ok(Self(Kind::Sentinel(Box::new(client.into()))));
        }
        let nodes: Vec<_> = hosts.split(',').map(|host| node(host, path)).collect::<Result<_, _>>()?;
        match <[_; 1]>::try_from(nodes) {
            Ok([info]) => {
                // Commands are small: without this option they would wait for a packet to fill.
                Self::standalone(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)), ca)
            }
            Err(nodes) => Ok(Self(Kind::Cluster { nodes, ca: ca.map(<[u8]>::to_vec) })),
        }
    }

    fn standalone(info: ConnectionInfo, ca: Option<&[u8]>) -> Result<Self, String> {
        let client = match ca {
            Some(ca) => Client::build_with_tls(info.clone(), certificates(ca)),
            None => Client::open(info.clone()),
        };
        let client = client.map_err(|error| format!("cannot be used: {error}"))?;
        Ok(Self(Kind::Standalone(Box::new(Standalone { client, info, ca: ca.map(<[u8]>::to_vec) }))))
    }

    /// Opens a connection. A response that takes longer than `response_timeout` is an error.
    pub(super) async fn connect(&self, response_timeout: Duration) -> RedisResult<Connection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(response_timeout));
        match &self.0 {
            Kind::Standalone(server) => {
                let mut connection =
                    server.client.get_multiplexed_async_connection_with_config(&config).await?;
                let info: RedisResult<String> =
                    redis::cmd("INFO").arg("cluster").query_async(&mut connection).await;
                let info = match info {
                    // A user without the right to ask, or a server without this command, has a single server, or lists
                    // the nodes in the URL.
                    Err(error) if forbidden(&error) || is_unknown_command(&error) => String::new(),
                    info => info?,
                };
                if !info.contains("cluster_enabled:1") {
                    return Ok(Connection::Standalone(connection));
                }
                let builder = cluster_builder(vec![server.info.clone()], server.ca.as_deref());
                connect_cluster(builder, response_timeout).await
            }
            Kind::Cluster { nodes, ca } => {
                connect_cluster(cluster_builder(nodes.clone(), ca.as_deref()), response_timeout).await
            }
            Kind::Sentinel(client) => {
                let mut client = client.lock().await;
                client.get_async_connection_with_config(&config).await.map(Connection::Standalone)
            }
        }
    }

    /// The address for messages, without a password.
    pub fn address(&self) -> String {
        match &self.0 {
            Kind::Standalone(server) => server.info.addr().to_string(),
            Kind::Cluster { .. } => "the Cluster".into(),
            Kind::Sentinel(_) => "the Sentinels".into(),
        }
    }
}

/// Whether the error says that the user in the URL lacks the permission.
pub(super) fn forbidden(error: &redis::RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::NoPerm)
}

/// Whether the server does not have the command: a proxy, or a command that the operator has renamed.
fn is_unknown_command(error: &redis::RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::ResponseError)
        && error.to_string().contains("unknown command")
}

async fn connect_cluster(
    builder: ClusterClientBuilder,
    response_timeout: Duration,
) -> RedisResult<Connection> {
    let client: ClusterClient = builder.response_timeout(response_timeout).build()?;
    client.get_async_connection().await.map(Connection::Cluster)
}

fn cluster_builder(nodes: Vec<ConnectionInfo>, ca: Option<&[u8]>) -> ClusterClientBuilder {
    let builder = ClusterClientBuilder::new(nodes)
        .connection_timeout(CONNECT_TIMEOUT)
        .tcp_settings(TcpSettings::default().set_nodelay(true))
        .retries(5)
        .max_retry_wait(500);
    match ca {
        Some(ca) => builder.certs(certificates(ca)),
        None => builder,
    }
}

fn sentinel_client(
    nodes: &[ConnectionInfo],
    service: &str,
    ca: Option<&[u8]>,
) -> Result<SentinelClient, String> {
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

/// The given certificates and the system's. The client library replaces the system's by what it is given.
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

/// The host with the default port of a Sentinel, unless it has a port.
fn with_sentinel_port(host: &str) -> String {
    let named = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if named { host.to_owned() } else { format!("{host}:26379") }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a redis::Cmd) -> redis::RedisFuture<'a, redis::Value> {
        match self {
            Self::Standalone(connection) => connection.req_packed_command(cmd),
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
            Self::Standalone(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Standalone(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_names_the_topology() {
        let parse = |url: &str| Topology::parse(&url.to_owned().into(), None).map(|topology| topology.0);
        assert!(matches!(parse("redis://h:1/2"), Ok(Kind::Standalone(_))));
        assert!(matches!(parse(" rediss://u:p%40@h "), Ok(Kind::Standalone(_))));
        for single in
            ["unix:///run/redis.sock", "redis+unix:///run/redis.sock", "valkey://h", "valkeys://h:1/2"]
        {
            assert!(matches!(parse(single), Ok(Kind::Standalone(_))), "{single}");
        }
        assert!(matches!(parse("redis://:p@a:1,b:2"), Ok(Kind::Cluster { .. })));
        assert!(matches!(parse("redis+sentinel://a,b:2/main/3"), Ok(Kind::Sentinel(_))));
        for wrong in ["", "h:1", "http://h", "redis://", "redis+sentinel://a,b", "redis://hunter2@h:port"] {
            let error = parse(wrong).err().unwrap_or_else(|| panic!("{wrong} is accepted"));
            assert!(error.contains("is not a Redis URL") && !error.contains("hunter2"), "{error}");
        }
        assert_eq!(with_sentinel_port("a"), "a:26379");
        assert_eq!(with_sentinel_port("a:1"), "a:1");
    }
}
