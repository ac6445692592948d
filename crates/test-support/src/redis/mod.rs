//! Redis servers for one test: on free ports, in temporary directories, killed when dropped.
//!
//! [`Redis`] is one server. [`Cluster`] and [`Sentinel`] are several servers, and [`TlsRedis`] is one with TLS. [`Relay`]
//! forwards connections to a server and can interrupt them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay;
mod topology;

use std::{
    io::{self, BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

pub use relay::Relay;
pub use topology::{Cluster, Sentinel, TlsRedis};

/// A Redis server.
pub struct Redis {
    child: Option<Child>,
    port: u16,
    dir: tempfile::TempDir,
    arguments: Vec<String>,
}

impl Redis {
    /// Starts `redis-server` and waits until it accepts connections. It stores nothing on disk.
    ///
    /// # Errors
    /// If there is no `redis-server` (`make test` installs it), or it does not start.
    pub fn start() -> io::Result<Self> {
        Self::with_arguments(&["--appendonly", "no"])
    }

    /// The same with an append-only file: what it acknowledges is there after a restart.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn durable() -> io::Result<Self> {
        Self::with_arguments(&["--appendonly", "yes", "--appendfsync", "everysec"])
    }

    /// Starts a server with these arguments.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn with_arguments(arguments: &[&str]) -> io::Result<Self> {
        Self::configured(|_, _| arguments.iter().map(ToString::to_string).collect())
    }

    /// Starts a server with arguments that depend on its port and its directory.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn configured(arguments: impl Fn(u16, &Path) -> Vec<String>) -> io::Result<Self> {
        // Another program may take a free port before Redis binds it. Then another port is tried.
        for _ in 0..20 {
            let mut server = Self::not_started()?;
            server.arguments = arguments(server.port, server.dir.path());
            if server.launch()? {
                return Ok(server);
            }
        }
        Err(io::Error::other("redis-server does not start"))
    }

    /// Reserves a free port and a directory without a start; [`Redis::restart`] starts the server.
    ///
    /// # Errors
    /// If there is no port or directory.
    pub fn not_started() -> io::Result<Self> {
        Ok(Self { child: None, port: free_port()?, dir: tempfile::tempdir()?, arguments: Vec::new() })
    }

    /// `redis://…`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory in which the server runs.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Kills the server, as if its machine had failed.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn kill(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Kills the server, removes its append-only file, and starts it again.
    ///
    /// # Errors
    /// If one of these fails.
    pub fn restart_empty(&mut self) -> io::Result<()> {
        self.kill()?;
        let files = self.dir.path().join("appendonlydir");
        if files.is_dir() {
            std::fs::remove_dir_all(files)?;
        }
        self.restart()
    }

    /// Kills the server if it is running, and starts it on the same port.
    ///
    /// # Errors
    /// If it does not start.
    pub fn restart(&mut self) -> io::Result<()> {
        self.kill()?;
        if self.launch()? { Ok(()) } else { Err(io::Error::other("the port is in use")) }
    }

    /// The response of the server to a command.
    ///
    /// # Panics
    /// If the server is unreachable or the command fails.
    pub async fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut sent = redis::cmd(command[0]);
        for argument in &command[1..] {
            sent.arg(*argument);
        }
        sent.query_async(&mut connection).await.unwrap()
    }

    /// Starts the process. `false` if it ended before it accepted connections.
    fn launch(&mut self) -> io::Result<bool> {
        let mut command = Command::new("redis-server");
        // A configuration file must be the first argument.
        let (file, options) = match self.arguments.split_first() {
            Some((first, options)) if !first.starts_with("--") => (Some(first), options),
            _ => (None, &self.arguments[..]),
        };
        command.args(file).args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(options).current_dir(self.dir.path()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let mut lines =
            child.stdout.take().map(|output| BufReader::new(output).lines()).into_iter().flatten();
        let ready = lines
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line.contains("Ready to accept connections") || line.contains("Sentinel ID is"));
        if !ready {
            child.wait()?;
            return Ok(false);
        }
        // The output is read to the end, so that Redis does not block on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        self.child = Some(child);
        Ok(true)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
