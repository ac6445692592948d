//! A Cluster, a master with a Sentinel, and a server with TLS.

use std::{io, path::Path, time::Duration};

use super::{Redis, free_port};

/// A Cluster of three masters with append-only files.
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts the nodes and waits until they have formed the Cluster.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub async fn start() -> io::Result<Self> {
        let node = |_| {
            Redis::configured(|_, _| {
                // The default bus port is the port plus 10,000, which may exceed the maximum.
                let bus = free_port().unwrap().to_string();
                let durable = ["--appendonly", "yes", "--appendfsync", "always"];
                let clustered = ["--cluster-enabled", "yes", "--cluster-port", &bus];
                durable.into_iter().chain(clustered).map(str::to_owned).collect()
            })
        };
        let nodes: Vec<Redis> = (0..3).map(node).collect::<io::Result<_>>()?;
        for (node, slots) in nodes.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
            node.ask::<String>(&["CLUSTER", "ADDSLOTSRANGE", slots.0, slots.1]).await;
        }
        for node in &nodes {
            let conf = std::fs::read_to_string(node.dir().join("nodes.conf"))?;
            let bus = conf.split('@').nth(1).and_then(|rest| rest.split([' ', ',']).next()).unwrap_or("");
            let meet = ["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string(), bus];
            nodes[0].ask::<String>(&meet).await;
        }
        for node in &nodes {
            let joined =
                |info: &str| info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3");
            while !joined(&node.ask::<String>(&["CLUSTER", "INFO"]).await) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(Self { nodes })
    }

    /// The URL that lists all nodes.
    pub fn url(&self) -> String {
        let nodes: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis://{}", nodes.join(","))
    }

    /// The number of keys on each node.
    pub async fn sizes(&self) -> Vec<u64> {
        let mut sizes = Vec::new();
        for node in &self.nodes {
            sizes.push(node.ask(&["DBSIZE"]).await);
        }
        sizes
    }
}

/// A master, its replica, and a Sentinel that makes the replica the master when the master fails.
pub struct Sentinel {
    /// The first master.
    pub master: Redis,
    /// Its replica.
    pub replica: Redis,
    sentinel: Redis,
}

impl Sentinel {
    /// Starts the servers and waits until the replica is connected to the master.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub async fn start() -> io::Result<Self> {
        let master = Redis::durable()?;
        let port = master.port().to_string();
        let replica = Redis::with_arguments(&["--appendonly", "yes", "--replicaof", "127.0.0.1", &port])?;
        let sentinel = Redis::configured(|_, dir| {
            let file = dir.join("sentinel.conf");
            let text = format!(
                "sentinel monitor main 127.0.0.1 {port} 1\nsentinel down-after-milliseconds main 500\nsentinel failover-timeout main 5000\n"
            );
            std::fs::write(&file, text).unwrap();
            vec![file.display().to_string(), "--sentinel".into()]
        })?;
        while !replica.ask::<String>(&["INFO", "replication"]).await.contains("master_link_status:up")
            || !sentinel.ask::<String>(&["INFO", "sentinel"]).await.contains("slaves=1")
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Self { master, replica, sentinel })
    }

    /// Kills the master after the replica has all of its writes. `WAIT` would cover only writes of its own connection.
    ///
    /// # Errors
    /// As [`Redis::kill`].
    pub async fn kill_replicated_master(&mut self) -> io::Result<()> {
        let written = replication_offset(&self.master, "master_repl_offset:").await;
        while replication_offset(&self.replica, "slave_repl_offset:").await < written {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.master.kill()
    }

    /// The URL of the Sentinel and its service.
    pub fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/main", self.sentinel.port())
    }
}

/// The bytes of writes in a field of `INFO replication`.
async fn replication_offset(server: &Redis, field: &str) -> u64 {
    let info: String = server.ask(&["INFO", "replication"]).await;
    info.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim().parse().unwrap()
}

/// A server with TLS, a certificate that no system trusts, and the password `hunter2`.
pub struct TlsRedis {
    /// The server; its own URL is without TLS.
    pub server: Redis,
    secure_port: u16,
}

impl TlsRedis {
    /// Starts the server.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn start() -> io::Result<Self> {
        let secure_port = free_port()?;
        let server = Redis::configured(|_, dir| {
            write_certificate(dir);
            let port = secure_port.to_string();
            let tls = ["--tls-port", &port, "--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem"];
            let access = ["--tls-auth-clients", "no", "--requirepass", "hunter2"];
            tls.into_iter().chain(access).map(str::to_owned).collect()
        })?;
        Ok(Self { server, secure_port })
    }

    /// The URL, with the password.
    pub fn url(&self) -> String {
        format!("rediss://:hunter2@localhost:{}", self.secure_port)
    }

    /// The path of the certificate to trust.
    pub fn ca_file(&self) -> std::path::PathBuf {
        self.server.dir().join("cert.pem")
    }
}

fn write_certificate(dir: &Path) {
    let certificate =
        rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    std::fs::write(dir.join("cert.pem"), certificate.cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), certificate.signing_key.serialize_pem()).unwrap();
}
