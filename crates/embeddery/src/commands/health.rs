//! `embeddery health`: one GET over a plain socket, so that a container needs no curl. It asks for
//! liveness only, and speaks to servers near by: HTTP, no TLS.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, ToSocketAddrs as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, ensure};

use super::say;
use crate::config::{self, Flags};

const PATH: &str = "/api/v1/embeddings/health";
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn run(url: Option<&str>, flags: &Flags) -> anyhow::Result<ExitCode> {
    let url = match url {
        Some(url) => url.to_owned(),
        None => format!("http://{}", reachable(config::load(flags)?.listen)),
    };
    match ask(&url) {
        Ok(()) => {
            say("healthy");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            say(format_args!("unhealthy: {error:#}"));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// A server that listens everywhere is reached at this machine's own address.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let mut address = listen;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    address
}

fn ask(url: &str) -> anyhow::Result<()> {
    let rest = url.strip_prefix("http://").context("--url must begin with http://")?;
    let host = rest.split('/').next().unwrap_or_default();
    let target = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let address = target.to_socket_addrs().with_context(|| format!("{target} is no address"))?.next();
    let address = address.with_context(|| format!("{target} has no address"))?;
    let mut stream =
        TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("connecting to {target}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {PATH} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(64 * 1024).read_to_end(&mut answer).with_context(|| format!("reading from {target}"))?;
    let first = String::from_utf8_lossy(&answer);
    let first = first.lines().next().unwrap_or_default();
    ensure!(first.split(' ').nth(1) == Some("200"), "{url}{PATH} answered '{first}'");
    Ok(())
}
