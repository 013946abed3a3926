//! A wire between two processes that can be slow, dead, or cut: what one side sends comes through as the weather allows.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// What becomes of bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// They pass.
    Clear,
    /// Each piece is this late.
    Delayed(Duration),
    /// Nothing passes until it clears up; connections stay, and those that are made wait as well.
    Stalled,
    /// Connections are reset, those that there are and those that are made.
    Cut,
}

/// Bytes that are carried in one piece.
const PIECE: usize = 16 << 10;

/// Listens at an address of its own, and carries each connection to another one.
pub struct Relay {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    _runtime: Runtime,
}

impl Relay {
    /// `to`: may be an address where nobody listens yet; connections that can't be carried on are reset.
    pub fn to(to: SocketAddr) -> Relay {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (weather, told) = watch::channel(Weather::Clear);
        runtime.spawn(serve(listener, to, told));
        Relay { address, weather, _runtime: runtime }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

async fn serve(listener: TcpListener, to: SocketAddr, weather: watch::Receiver<Weather>) {
    while let Ok((client, _)) = listener.accept().await {
        let mut weather = weather.clone();
        tokio::spawn(async move {
            // What is not closed in order is reset.
            let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
            let mut cut = weather.clone();
            tokio::select! {
                biased;
                _ = cut.wait_for(|weather| *weather == Weather::Cut) => {}
                _ = carry(client, to, &mut weather) => {}
            }
        });
    }
}

async fn carry(client: TcpStream, to: SocketAddr, weather: &mut watch::Receiver<Weather>) -> std::io::Result<()> {
    let server = TcpStream::connect(to).await?;
    SockRef::from(&server).set_linger(Some(Duration::ZERO))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut there = weather.clone();
    tokio::try_join!(one_way(from_client, to_server, &mut there), one_way(from_server, to_client, weather)).map(drop)
}

/// Until the sender has nothing more to send, which the receiver is told.
async fn one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    weather: &mut watch::Receiver<Weather>,
) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let count = from.read(&mut piece).await?;
        let now = weather.wait_for(|weather| *weather != Weather::Stalled).await.map(|now| *now);
        if let Ok(Weather::Delayed(by)) = now {
            tokio::time::sleep(by).await;
        }
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(piece.get(..count).unwrap_or(&[])).await?;
    }
}
