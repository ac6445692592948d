//! A relay between a client and a server. What passes through it can be stopped, as on a line that is overloaded.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// A relay to a port on 127.0.0.1.
pub struct Relay {
    port: u16,
    lines: Arc<Mutex<Vec<watch::Sender<bool>>>>,
}

impl Relay {
    /// Starts a relay to this port.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Self { port: listener.local_addr().unwrap().port(), lines: Arc::default() };
        let lines = Arc::clone(&relay.lines);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let line = watch::Sender::new(true);
                let (from, to) = (client.into_split(), server.into_split());
                tokio::spawn(pass(from.0, to.1, line.subscribe()));
                tokio::spawn(pass(to.0, from.1, line.subscribe()));
                lines.lock().unwrap().push(line);
            }
        });
        relay
    }

    /// The port of the relay.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops the current connections: nothing passes on them any more.
    pub fn stop_current_connections(&self) {
        self.lines.lock().unwrap().iter().for_each(|line| line.send(false).unwrap());
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut open: watch::Receiver<bool>) {
    let mut part = vec![0; 1 << 14];
    while let Ok(length @ 1..) = from.read(&mut part).await {
        if open.wait_for(|open| *open).await.is_err() || to.write_all(&part[..length]).await.is_err() {
            return;
        }
    }
}
