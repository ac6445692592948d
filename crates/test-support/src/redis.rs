//! A real Redis of one test's own: on a free port, in a directory of its own, killed when dropped.

use std::{
    io::{self, BufRead as _, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

/// A running Redis.
pub struct Redis {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
    durable: bool,
}

impl Redis {
    /// Starts `redis-server` and waits until it accepts connections.
    ///
    /// # Errors
    /// When there is no `redis-server` (`make test` installs it), or it does not start.
    pub fn start() -> io::Result<Self> {
        Self::with(false)
    }

    /// The same, and what it has acknowledged outlives it: with an append-only file.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn durable() -> io::Result<Self> {
        Self::with(true)
    }

    fn with(durable: bool) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        // Another program may take a free port before Redis does; then another is tried.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            if let Some(child) = launch(port, dir.path(), durable)? {
                return Ok(Self { child, port, dir, durable });
            }
        }
        Err(io::Error::other("redis-server does not start"))
    }

    /// `redis://…`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Kills it, as a machine that dies does.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Kills it, removes all it has written, and starts it again.
    ///
    /// # Errors
    /// When one of these fails.
    pub fn lose(&mut self) -> io::Result<()> {
        self.kill()?;
        let files = self.dir.path().join("appendonlydir");
        if files.is_dir() {
            std::fs::remove_dir_all(files)?;
        }
        self.restart()
    }

    /// Starts it again on the same port.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self) -> io::Result<()> {
        let again = launch(self.port, self.dir.path(), self.durable)?;
        self.child = again.ok_or_else(|| io::Error::other("the port is taken"))?;
        Ok(())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn launch(port: u16, dir: &Path, durable: bool) -> io::Result<Option<Child>> {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
    command.args(["--appendonly", if durable { "yes" } else { "no" }]);
    let mut child = command.current_dir(dir).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut lines = child.stdout.take().map(|output| BufReader::new(output).lines()).into_iter().flatten();
    if !lines.by_ref().map_while(Result::ok).any(|line| line.contains("Ready to accept connections")) {
        child.wait()?;
        return Ok(None);
    }
    // Read on, so that Redis never blocks on a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    Ok(Some(child))
}
