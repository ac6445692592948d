//! `embeddery health`: one GET request over a plain socket, so that a container image needs no curl. It checks liveness
//! only. Over TLS it connects only to a server with the configured certificate.

mod tls;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs as _},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};

use super::println_stdout;
use crate::config::{self, Flags};

/// The path that the API and the orchestrator both serve.
const PATH: &str = "/health";
const TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn run(url: Option<&str>, flags: &Flags) -> anyhow::Result<ExitCode> {
    let (url, certificate) = match url {
        Some(url) if !url.starts_with("https://") => (url.to_owned(), None),
        url => {
            let config = config::load(flags)?;
            let certificate = config.accounts.tls.map(|(certificate, _)| certificate);
            let scheme = if certificate.is_some() { "https" } else { "http" };
            let own = || format!("{scheme}://{}", reachable(config.listen));
            (url.map_or_else(own, str::to_owned), certificate)
        }
    };
    match check(&url, certificate.as_deref()) {
        Ok(()) => {
            println_stdout("healthy");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            println_stdout(format_args!("unhealthy: {error:#}"));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The loopback address if the server listens on all addresses.
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

fn check(url: &str, certificate: Option<&Path>) -> anyhow::Result<()> {
    let (scheme, rest) = url.split_once("://").context("--url must begin with http:// or https://")?;
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => bail!("--url must begin with http:// or https://"),
    };
    let host = rest.split('/').next().unwrap_or_default();
    let target = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:{default_port}")
    };
    let address = target.to_socket_addrs().with_context(|| format!("{target} is not an address"))?.next();
    let address = address.with_context(|| format!("{target} has no address"))?;
    let stream =
        TcpStream::connect_timeout(&address, TIMEOUT).with_context(|| format!("connecting to {target}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    if scheme == "http" {
        return get(stream, host);
    }
    let certificate = certificate.context("the server's certificate is unknown; set tls.certificate_file")?;
    get(tls::connect(stream, host, certificate)?, host)
}

fn get(mut stream: impl Read + Write, host: &str) -> anyhow::Result<()> {
    write!(stream, "GET {PATH} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut response = Vec::new();
    stream.take(64 * 1024).read_to_end(&mut response).with_context(|| format!("reading from {host}"))?;
    let response = String::from_utf8_lossy(&response);
    let first = response.lines().next().unwrap_or_default();
    ensure!(first.split(' ').nth(1) == Some("200"), "{host}{PATH} responded '{first}'");
    Ok(())
}
