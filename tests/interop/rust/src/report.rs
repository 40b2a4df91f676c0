//! Every event of the swarm as one line of JSON.

use crate::node::{BehaviourEvent, Event};
use libp2p::{
    Multiaddr, core::ConnectedPoint, dcutr, identify, kad, mdns, multiaddr::Protocol, relay, rendezvous,
    swarm::SwarmEvent,
};
use serde_json::{Value, json};
use std::fmt::Debug;

/// Events of little interest are cut to this many characters of their debugging text.
const DETAIL_LENGTH: usize = 600;

pub fn emit(kind: &str, fields: Value) {
    let mut line = json!({"kind": kind});
    let (Value::Object(line_fields), Value::Object(fields)) = (&mut line, fields) else {
        unreachable!("fields are an object");
    };
    line_fields.extend(fields);
    println!("{line}");
}

pub fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

fn texts<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

fn detail(kind: &str, what: &impl Debug) {
    let text: String = format!("{what:?}").chars().take(DETAIL_LENGTH).collect();
    emit(kind, json!({"detail": text}));
}

fn connection(kind: &str, peer: &impl ToString, endpoint: &ConnectedPoint, cause: Option<String>) {
    let path = if endpoint.is_relayed() { "relayed" } else { "direct" };
    let direction = if endpoint.is_dialer() { "outbound" } else { "inbound" };
    let address = match endpoint {
        ConnectedPoint::Dialer { address, .. } => address,
        ConnectedPoint::Listener { send_back_addr, .. } => send_back_addr,
    };
    emit(
        kind,
        json!({"peer_id": peer.to_string(), "address": address.to_string(), "path": path, "direction": direction, "cause": cause}),
    );
}

pub fn report(event: &Event) {
    match event {
        SwarmEvent::NewListenAddr { address, .. } => {
            emit("address", json!({"address": address.to_string(), "relayed": is_relayed(address)}));
        }
        SwarmEvent::ExternalAddrConfirmed { address } => emit("external", json!({"address": address.to_string()})),
        SwarmEvent::NewExternalAddrCandidate { address } => emit("observed", json!({"address": address.to_string()})),
        SwarmEvent::ListenerClosed { addresses, reason, .. } => {
            emit("listener-closed", json!({"addresses": texts(addresses), "message": format!("{reason:?}")}));
        }
        SwarmEvent::ListenerError { error, .. } => emit("listener-failed", json!({"message": error.to_string()})),
        SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => connection("connected", peer_id, endpoint, None),
        SwarmEvent::ConnectionClosed { peer_id, endpoint, cause, .. } => {
            connection("disconnected", peer_id, endpoint, cause.as_ref().map(ToString::to_string));
        }
        SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => {
            let peer = peer_id.map(|peer| peer.to_string());
            emit("dial-failed", json!({"peer_id": peer, "message": error.to_string()}));
        }
        SwarmEvent::IncomingConnectionError { error, .. } => detail("incoming-failed", error),
        SwarmEvent::Behaviour(event) => report_behaviour(event),
        _ => {}
    }
}

fn report_behaviour(event: &BehaviourEvent) {
    match event {
        BehaviourEvent::Identify(event) => report_identify(event),
        BehaviourEvent::Ping(event) => {
            let rtt = event.result.as_ref().ok().map(|rtt| rtt.as_secs_f64() * 1e3);
            let failure = event.result.as_ref().err().map(ToString::to_string);
            emit("pong", json!({"peer_id": event.peer.to_string(), "rtt_ms": rtt, "message": failure}));
        }
        BehaviourEvent::RelayClient(relay::client::Event::ReservationReqAccepted { relay_peer_id, renewal, limit }) => {
            emit(
                "reserved",
                json!({"relay": relay_peer_id.to_string(), "renewal": renewal, "limit": format!("{limit:?}")}),
            );
        }
        BehaviourEvent::RelayClient(event) => detail("circuit", event),
        BehaviourEvent::Dcutr(dcutr::Event { remote_peer_id, result }) => {
            let failure = result.as_ref().err().map(ToString::to_string);
            emit("dcutr", json!({"peer_id": remote_peer_id.to_string(), "ok": result.is_ok(), "message": failure}));
        }
        BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => report_mdns("mdns-found", found),
        BehaviourEvent::Mdns(mdns::Event::Expired(gone)) => report_mdns("mdns-expired", gone),
        BehaviourEvent::Kad(kad::Event::RoutingUpdated { peer, addresses, .. }) => {
            emit("kad-peer", json!({"peer_id": peer.to_string(), "addresses": texts(addresses.iter())}));
        }
        BehaviourEvent::Kad(kad::Event::InboundRequest { request }) => detail("kad-request", request),
        BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed { result, .. }) => detail("kad-result", result),
        BehaviourEvent::Rendezvous(event) => report_rendezvous(event),
        BehaviourEvent::Relay(event) => detail("relay", event),
        BehaviourEvent::RendezvousServer(event) => detail("rendezvous", event),
        BehaviourEvent::Autonat(event) => detail("autonat", event),
        BehaviourEvent::AutonatClient(event) => detail("autonat-client", event),
        BehaviourEvent::AutonatServer(event) => detail("autonat-server", event),
        BehaviourEvent::Kad(_) | BehaviourEvent::Stream(()) => {}
    }
}

fn report_identify(event: &identify::Event) {
    if let identify::Event::Received { peer_id, info, .. } = event {
        emit(
            "identified",
            json!({
                "peer_id": peer_id.to_string(), "agent": info.agent_version, "protocols": texts(&info.protocols),
                "observed": info.observed_addr.to_string(), "listening": texts(&info.listen_addrs),
                "signed_record": info.signed_peer_record.is_some(),
            }),
        );
    }
    if let identify::Event::Error { peer_id, error, .. } = event {
        emit("identify-failed", json!({"peer_id": peer_id.to_string(), "message": error.to_string()}));
    }
}

fn report_mdns(kind: &str, peers: &[(libp2p::PeerId, Multiaddr)]) {
    for (peer, address) in peers {
        emit(kind, json!({"peer_id": peer.to_string(), "addresses": [address.to_string()]}));
    }
}

fn report_rendezvous(event: &rendezvous::client::Event) {
    match event {
        rendezvous::client::Event::Registered { rendezvous_node, ttl, namespace } => {
            emit(
                "registered",
                json!({"at": rendezvous_node.to_string(), "ttl_s": ttl, "namespace": namespace.to_string()}),
            );
        }
        rendezvous::client::Event::Discovered { rendezvous_node, registrations, .. } => {
            let found: Vec<_> = registrations
                .iter()
                .map(|r| json!({"peer_id": r.record.peer_id().to_string(), "ttl_s": r.ttl, "addresses": texts(r.record.addresses())}))
                .collect();
            emit("discovered", json!({"at": rendezvous_node.to_string(), "found": found}));
        }
        other => detail("rendezvous-failed", other),
    }
}
