//! The provider: every tunnel stream leads to the target.

use crate::{
    Outcome,
    announce::{Announcer, Goal},
    node::{Node, TUNNEL},
    options::Common,
    report::emit,
    splice::splice,
};
use futures::StreamExt;
use libp2p::{PeerId, Stream};
use serde_json::json;
use std::net::SocketAddr;
use tokio::net::TcpStream;

pub async fn run(common: Common, target: SocketAddr) -> Outcome {
    let goal = Goal { announce: true, ..Goal::default() };
    let mut node = Node::start(&common, None, Announcer::new(&common, goal)?).await?;
    let mut incoming = node.swarm.behaviour().stream.new_control().accept(TUNNEL)?;
    tokio::spawn(async move {
        while let Some((peer, stream)) = incoming.next().await {
            tokio::spawn(serve(peer, stream, target, common.buffer_kib));
        }
    });
    for address in [&common.relay, &common.rendezvous].into_iter().flatten() {
        node.swarm.dial(address.clone())?;
    }
    if common.relay.is_some() {
        node.reach_relay().await;
    }
    node.report_ready();
    node.run().await
}

async fn serve(peer: PeerId, stream: Stream, target: SocketAddr, buffer_kib: usize) {
    match TcpStream::connect(target).await {
        Ok(connection) => {
            emit("tunnel-opened", json!({"peer_id": peer.to_string()}));
            splice(stream, connection, buffer_kib).await;
        }
        // Dropping the stream resets it.
        Err(error) => emit("target-refused", json!({"message": error.to_string()})),
    }
}
