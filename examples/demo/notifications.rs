//! A notification server that only takes down what it gets.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Limit on waiting notifications. The demo expects one.
const MAX_WAITING: usize = 16;

pub(crate) struct NotificationServer {
    pub(crate) address: SocketAddr,
    bodies: mpsc::Receiver<String>,
}

impl NotificationServer {
    pub(crate) async fn start() -> Result<Self> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        let (sender, bodies) = mpsc::channel(MAX_WAITING);
        let app = Router::new().route("/notify", post(receive)).with_state(sender);
        tokio::spawn(axum::serve(socket, app).into_future());
        Ok(Self { address, bodies })
    }

    /// The next notification's body.
    pub(crate) async fn next(&mut self) -> Result<String> {
        self.bodies.recv().await.context("the notification server has ended")
    }

    /// A notification that is there already.
    pub(crate) fn take(&mut self) -> Option<String> {
        self.bodies.try_recv().ok()
    }
}

async fn receive(State(bodies): State<mpsc::Sender<String>>, body: String) -> StatusCode {
    // The demo is over if nobody looks at them any more.
    let _ = bodies.try_send(body);
    StatusCode::OK
}
