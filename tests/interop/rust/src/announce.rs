//! What a node does of its own accord: reserve at a relay, register and discover at a rendezvous point,
//! dial what discovery finds, leave the relay once a direct path exists.

use crate::{
    Outcome,
    node::{Behaviour, BehaviourEvent, Event, peer_of},
    options::Common,
    report::{emit, is_relayed},
};
use libp2p::{
    Multiaddr, PeerId, Swarm, dcutr, identify, mdns,
    multiaddr::Protocol,
    rendezvous::{self, Namespace},
    swarm::{ConnectionId, SwarmEvent, dial_opts::DialOpts},
};
use serde_json::json;
use std::collections::{HashMap, HashSet};

const REGISTRATION_SECONDS: u64 = 7200;

/// Whether the node wants to be found, and whom it looks for.
#[derive(Clone, Copy, Default)]
pub struct Goal {
    pub announce: bool,
    pub search: bool,
    pub wanted: Option<PeerId>,
}

pub struct Announcer {
    goal: Goal,
    external: bool,
    close_relayed: bool,
    kad_protocol: String,
    namespace: Namespace,
    relay: Option<(PeerId, Multiaddr)>,
    rendezvous: Option<PeerId>,
    done: HashSet<PeerId>,
    relayed: HashMap<PeerId, HashSet<ConnectionId>>,
}

impl Announcer {
    pub fn new(common: &Common, goal: Goal) -> Outcome<Self> {
        let relay = match &common.relay {
            Some(address) => Some((peer_of(address)?, address.clone())),
            None => None,
        };
        Ok(Announcer {
            goal,
            external: common.external,
            close_relayed: common.close_relayed,
            kad_protocol: common.kad_protocol.clone(),
            namespace: Namespace::new(common.namespace.clone())?,
            relay,
            rendezvous: common.rendezvous.as_ref().map(peer_of).transpose()?,
            done: HashSet::new(),
            relayed: HashMap::new(),
        })
    }

    pub fn react(&mut self, swarm: &mut Swarm<Behaviour>, event: &Event) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => self.on_address(swarm, address),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } if endpoint.is_relayed() => {
                self.relayed.entry(*peer_id).or_default().insert(*connection_id);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } => {
                self.relayed.entry(*peer_id).or_default().remove(connection_id);
            }
            SwarmEvent::Behaviour(event) => self.on_behaviour(swarm, event),
            _ => {}
        }
    }

    fn on_behaviour(&mut self, swarm: &mut Swarm<Behaviour>, event: &BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                self.on_identified(swarm, *peer_id, info);
            }
            BehaviourEvent::Dcutr(dcutr::Event { remote_peer_id, result: Ok(_) }) if self.close_relayed => {
                for connection in self.relayed.remove(remote_peer_id).unwrap_or_default() {
                    swarm.close_connection(connection);
                }
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                let mut addresses: HashMap<PeerId, Vec<Multiaddr>> = HashMap::new();
                for (peer, address) in found {
                    addresses.entry(*peer).or_default().push(address.clone());
                }
                for (peer, addresses) in addresses {
                    self.dial_found(swarm, peer, addresses);
                }
            }
            BehaviourEvent::Rendezvous(rendezvous::client::Event::Discovered { registrations, .. }) => {
                for found in registrations {
                    self.dial_found(swarm, found.record.peer_id(), found.record.addresses().to_vec());
                }
            }
            _ => {}
        }
    }

    fn on_address(&mut self, swarm: &mut Swarm<Behaviour>, address: &Multiaddr) {
        if is_relayed(address) {
            // Before the relay has given a slot there was no address to register.
            if let Some(point) = self.rendezvous.filter(|point| self.done.contains(point)) {
                self.register(swarm, point);
            }
        } else if self.external {
            swarm.add_external_address(address.clone());
        }
    }

    fn on_identified(&mut self, swarm: &mut Swarm<Behaviour>, peer: PeerId, info: &identify::Info) {
        if info.protocols.iter().any(|protocol| protocol.as_ref() == self.kad_protocol) {
            for address in &info.listen_addrs {
                swarm.behaviour_mut().kad.add_address(&peer, address.clone());
            }
        }
        if !self.done.insert(peer) {
            return;
        }
        if let Some((_, address)) = self.relay.as_ref().filter(|(relay, _)| *relay == peer)
            && let Err(error) = swarm.listen_on(address.clone().with(Protocol::P2pCircuit))
        {
            emit("reserve-failed", json!({"message": error.to_string()}));
        }
        if self.rendezvous == Some(peer) {
            if self.goal.announce && self.relay.is_none() {
                self.register(swarm, peer);
            }
            if self.goal.search {
                swarm.behaviour_mut().rendezvous.discover(Some(self.namespace.clone()), None, None, peer);
            }
        }
    }

    fn register(&self, swarm: &mut Swarm<Behaviour>, point: PeerId) {
        let client = &mut swarm.behaviour_mut().rendezvous;
        if let Err(error) = client.register(self.namespace.clone(), point, Some(REGISTRATION_SECONDS)) {
            emit("register-failed", json!({"message": format!("{error:?}")}));
        }
    }

    fn dial_found(&self, swarm: &mut Swarm<Behaviour>, peer: PeerId, addresses: Vec<Multiaddr>) {
        let wanted = self.goal.wanted.is_none_or(|wanted| wanted == peer);
        if !self.goal.search || !wanted || peer == *swarm.local_peer_id() || swarm.is_connected(&peer) {
            return;
        }
        if let Err(error) = swarm.dial(DialOpts::peer_id(peer).addresses(addresses).build()) {
            emit("dial-failed", json!({"peer_id": peer.to_string(), "message": error.to_string()}));
        }
    }
}
