//! The consumer: every local connection gets a tunnel stream.

use crate::{
    Outcome,
    announce::{Announcer, Goal},
    node::{BehaviourEvent, Node, TUNNEL, peer_of},
    options::{Common, Dial},
    report::{emit, is_relayed},
    splice::splice,
};
use libp2p::{Multiaddr, PeerId, identify, multiaddr::Protocol, swarm::SwarmEvent};
use libp2p_stream::Control;
use serde_json::json;
use std::time::Duration;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

pub async fn run(common: Common, dial: Dial) -> Outcome {
    let wanted = dial.peer_id.or(dial.peer.as_ref().map(peer_of).transpose()?);
    let goal = Goal { search: true, wanted, ..Goal::default() };
    let mut node = Node::start(&common, None, Announcer::new(&common, goal)?).await?;
    for address in [&common.relay, &common.rendezvous].into_iter().flatten() {
        node.swarm.dial(address.clone())?;
    }
    if let Some(address) = dial.peer {
        if is_relayed(&address) {
            meet_relay(&mut node, &address).await?;
        }
        node.swarm.dial(address)?;
    }
    let infrastructure: Vec<PeerId> =
        [&common.relay, &common.rendezvous].into_iter().flatten().map(peer_of).collect::<Outcome<_>>()?;
    let is_provider = |peer| wanted.map_or(!infrastructure.contains(&peer), |wanted| wanted == peer);
    let provider = connected(&mut node, is_provider, Duration::from_secs(dial.wait_direct)).await;
    let listener = TcpListener::bind(dial.local).await?;
    let local = listener.local_addr()?.to_string();
    emit("listening", json!({"local": local, "peer_id": provider.to_string(), "pid": std::process::id()}));
    let control = node.swarm.behaviour().stream.new_control();
    tokio::spawn(accept(listener, control, provider, common.buffer_kib));
    node.run().await
}

/// Exchanges identify with the relay first: the address that it observes is what hole punching offers.
async fn meet_relay(node: &mut Node, through: &Multiaddr) -> Outcome {
    let address: Multiaddr = through.iter().take_while(|part| *part != Protocol::P2pCircuit).collect();
    let relay = peer_of(&address)?;
    node.swarm.dial(address)?;
    let (mut sent, mut received) = (false, false);
    let exchange = async {
        while !(sent && received) {
            if let SwarmEvent::Behaviour(BehaviourEvent::Identify(event)) = node.next().await {
                sent |= matches!(event, identify::Event::Sent { peer_id, .. } if peer_id == relay);
                received |= matches!(event, identify::Event::Received { peer_id, .. } if peer_id == relay);
            }
        }
    };
    timeout(Duration::from_secs(5), exchange).await.map_err(|_| "no identify with the relay within 5 s".into())
}

/// The first provider to be connected, after a wait for a direct path if its first is relayed.
async fn connected(node: &mut Node, is_provider: impl Fn(PeerId) -> bool, wait_direct: Duration) -> PeerId {
    loop {
        let SwarmEvent::ConnectionEstablished { peer_id: provider, endpoint, .. } = node.next().await else {
            continue;
        };
        if !is_provider(provider) {
            continue;
        }
        if endpoint.is_relayed() {
            let _relayed_will_do = timeout(wait_direct, direct(node, provider)).await;
        }
        return provider;
    }
}

async fn direct(node: &mut Node, provider: PeerId) {
    loop {
        if let SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } = node.next().await
            && peer_id == provider
            && !endpoint.is_relayed()
        {
            return;
        }
    }
}

async fn accept(listener: TcpListener, control: Control, provider: PeerId, buffer_kib: usize) {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => tokio::spawn(open(connection, control.clone(), provider, buffer_kib)),
            Err(error) => {
                emit("accept-failed", json!({"message": error.to_string()}));
                continue;
            }
        };
    }
}

async fn open(connection: TcpStream, mut control: Control, provider: PeerId, buffer_kib: usize) {
    match control.open_stream(provider, TUNNEL).await {
        Ok(stream) => splice(stream, connection, buffer_kib).await,
        Err(error) => {
            emit("stream-failed", json!({"message": error.to_string()}));
            let _already_gone = connection.set_zero_linger();
        }
    }
}
