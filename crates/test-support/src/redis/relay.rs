//! A relay between clients and a server that can stop forwarding, as on an overloaded network.

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
    connections: Arc<Mutex<Vec<watch::Sender<bool>>>>,
}

impl Relay {
    /// Starts a relay to this port.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Self { port: listener.local_addr().unwrap().port(), connections: Arc::default() };
        let connections = Arc::clone(&relay.connections);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let open = watch::Sender::new(true);
                let (from, to) = (client.into_split(), server.into_split());
                tokio::spawn(forward(from.0, to.1, open.subscribe()));
                tokio::spawn(forward(to.0, from.1, open.subscribe()));
                connections.lock().unwrap().push(open);
            }
        });
        relay
    }

    /// The port of the relay.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops the current connections: no more bytes are forwarded on them.
    pub fn stop_current_connections(&self) {
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
