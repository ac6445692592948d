//! A real Redis of one test's own: on a free port, in a directory of its own, killed when dropped.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
};

/// A running Redis.
pub struct Redis {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Redis {
    /// Starts `redis-server` and waits until it accepts connections.
    ///
    /// # Panics
    /// When there is no `redis-server`; `make test` installs it.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory for Redis");
        // Another program may take a free port before Redis does; then another is tried.
        for _ in 0..20 {
            let port = free_port();
            if let Some(child) = launch(port, dir.path()) {
                return Self { child, port, dir };
            }
        }
        panic!("redis-server did not start");
    }

    /// `redis://…`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Kills it, as a machine that dies does.
    ///
    /// # Panics
    /// When it is dead already.
    pub fn kill(&mut self) {
        self.child.kill().expect("Redis runs");
        self.child.wait().expect("Redis ends");
    }

    /// Starts it again on the same port.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.child = launch(self.port, self.dir.path()).expect("Redis starts again");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

fn launch(port: u16, dir: &std::path::Path) -> Option<Child> {
    let mut child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .current_dir(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed; `make test` does it");
    let output = child.stdout.take()?;
    let mut lines = BufReader::new(output).lines();
    let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("Ready to accept connections"));
    if !ready {
        let _ = child.wait();
        return None;
    }
    // Read on, so that Redis never blocks on a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    Some(child)
}
