//! Real Redis servers, each of one test and with its settings. They are killed when they are dropped.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    sync::watch,
};

pub struct Server {
    child: Option<Child>,
    pub port: u16,
    dir: tempfile::TempDir,
    arguments: Vec<String>,
}

impl Server {
    /// A server that keeps nothing over a restart.
    pub fn volatile() -> Self {
        Self::start(&["--appendonly", "no"])
    }

    /// A server that keeps what it has acknowledged over a restart.
    pub fn durable() -> Self {
        Self::start(&["--appendonly", "yes", "--appendfsync", "everysec"])
    }

    pub fn start(arguments: &[&str]) -> Self {
        Self::with_arguments(|_, _| arguments.iter().map(ToString::to_string).collect())
    }

    /// A server whose arguments depend on its port and its directory.
    pub fn with_arguments(arguments: impl Fn(u16, &Path) -> Vec<String>) -> Self {
        // Another program may take the free port first. Then the next port is tried.
        for _ in 0..20 {
            let mut server = Self::not_started();
            server.arguments = arguments(server.port, server.dir.path());
            if server.launch() {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    /// A server with a free port and a directory, which is not started yet.
    pub fn not_started() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { child: None, port: free_port(), dir, arguments: Vec::new() }
    }

    pub fn launch(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        // A configuration file is the first argument.
        let (file, rest) = match self.arguments.split_first() {
            Some((first, rest)) if !first.starts_with("--") => (Some(first), rest),
            _ => (None, &self.arguments[..]),
        };
        command
            .args(file)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(rest);
        let mut child = command
            .current_dir(self.dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line.contains("Ready to accept connections") || line.contains("Sentinel ID is"));
        if !ready {
            child.wait().unwrap();
            return false;
        }
        std::thread::spawn(move || lines.for_each(drop));
        self.child = Some(child);
        true
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Kills the server with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn restart(&mut self) {
        self.kill();
        assert!(self.launch(), "the port is taken");
    }

    /// Sends a command and returns the reply.
    pub async fn command<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut sent = redis::cmd(command[0]);
        for argument in &command[1..] {
            sent.arg(*argument);
        }
        sent.query_async(&mut connection).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A proxy between a client and a server, whose connections can be blocked.
pub struct Proxy {
    pub port: u16,
    connections: Arc<Mutex<Vec<watch::Sender<bool>>>>,
}

impl Proxy {
    pub async fn to(port: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self { port: listener.local_addr().unwrap().port(), connections: Arc::default() };
        let connections = Arc::clone(&proxy.connections);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let open = watch::Sender::new(true);
                let (from, to) = (client.into_split(), server.into_split());
                tokio::spawn(forward(from.0, to.1, open.subscribe()));
                tokio::spawn(forward(to.0, from.1, open.subscribe()));
                connections.lock().unwrap().push(open);
            }
        });
        proxy
    }

    /// Blocks the connections that are open now.
    pub fn block_open_connections(&self) {
        self.connections.lock().unwrap().iter().for_each(|open| open.send(false).unwrap());
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut open: watch::Receiver<bool>) {
    let mut buffer = vec![0; 1 << 14];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if open.wait_for(|open| *open).await.is_err() || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
