//! The swarm: its transports, its behaviours, and the loop that reports and reacts.

use crate::{
    Outcome,
    announce::Announcer,
    options::{Common, Limits, Transport},
    report::{emit, is_relayed, report},
};
use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, autonat, dcutr, identify, identity, kad, mdns,
    multiaddr::Protocol,
    noise, ping, relay, rendezvous,
    swarm::{NetworkBehaviour, SwarmEvent, behaviour::toggle::Toggle},
    tcp, tls, yamux,
};
use serde_json::json;
use std::{error::Error, time::Duration};

pub const TUNNEL: StreamProtocol = StreamProtocol::new("/portkey/tunnel/1.0.0");

pub type Event = SwarmEvent<BehaviourEvent>;

#[derive(NetworkBehaviour)]
pub struct Behaviour {
    pub relay_client: relay::client::Behaviour,
    pub relay: Toggle<relay::Behaviour>,
    pub identify: identify::Behaviour,
    pub ping: ping::Behaviour,
    pub dcutr: Toggle<dcutr::Behaviour>,
    pub mdns: Toggle<mdns::tokio::Behaviour>,
    pub kad: kad::Behaviour<kad::store::MemoryStore>,
    pub rendezvous: rendezvous::client::Behaviour,
    pub rendezvous_server: Toggle<rendezvous::server::Behaviour>,
    pub autonat: Toggle<autonat::v1::Behaviour>,
    pub autonat_client: Toggle<autonat::v2::client::Behaviour>,
    pub autonat_server: Toggle<autonat::v2::server::Behaviour>,
    pub stream: libp2p_stream::Behaviour,
}

pub struct Node {
    pub swarm: Swarm<Behaviour>,
    announcer: Announcer,
    addresses: Vec<Multiaddr>,
}

impl Node {
    /// A node that listens; `limits` make it a relay.
    pub async fn start(common: &Common, limits: Option<Limits>, announcer: Announcer) -> Outcome<Self> {
        let swarm = build(common, limits)?;
        let mut node = Node { swarm, announcer, addresses: Vec::new() };
        let wanted = listen_addresses(common);
        let listeners = wanted.len();
        for address in wanted {
            node.swarm.listen_on(address)?;
        }
        // Only a dial after this can share the listening port, which hole punching needs.
        while node.addresses.len() < listeners {
            node.next().await;
        }
        for address in &common.bootstrap {
            node.swarm.dial(address.clone())?;
        }
        Ok(node)
    }

    /// The next event, after it has been reported and reacted to.
    pub async fn next(&mut self) -> Event {
        let event = self.swarm.select_next_some().await;
        report(&event);
        if let SwarmEvent::NewListenAddr { address, .. } = &event {
            self.addresses.push(address.clone());
        }
        self.announcer.react(&mut self.swarm, &event);
        event
    }

    /// Runs the swarm for good.
    pub async fn run(mut self) -> ! {
        loop {
            self.next().await;
        }
    }

    pub async fn reach_relay(&mut self) {
        while !self.addresses.iter().any(is_relayed) {
            self.next().await;
        }
    }

    pub fn report_ready(&self) {
        let id = *self.swarm.local_peer_id();
        let full = |address: &Multiaddr| address.clone().with_p2p(id).unwrap_or_else(|a| a).to_string();
        let addresses: Vec<_> = self.addresses.iter().map(full).collect();
        emit("ready", json!({"peer_id": id.to_string(), "addresses": addresses, "pid": std::process::id()}));
    }
}

/// The peer that an address leads to: the last one, after any relay.
pub fn peer_of(address: &Multiaddr) -> Outcome<PeerId> {
    let peers = address.iter().filter_map(|part| match part {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    });
    peers.last().ok_or_else(|| format!("{address} names no peer").into())
}

fn listen_addresses(common: &Common) -> Vec<Multiaddr> {
    if !common.listen.is_empty() {
        return common.listen.clone();
    }
    let tcp = "/ip4/127.0.0.1/tcp/0".parse().expect("a multiaddr");
    let quic = "/ip4/127.0.0.1/udp/0/quic-v1".parse().expect("a multiaddr");
    match common.transport {
        Transport::Noise | Transport::Tls => vec![tcp],
        Transport::Quic => vec![quic],
        Transport::All => vec![tcp, quic],
    }
}

fn keypair(seed: Option<&str>) -> Outcome<identity::Keypair> {
    let Some(seed) = seed else {
        return Ok(identity::Keypair::generate_ed25519());
    };
    let mut bytes = [0; 32];
    bytes.get_mut(..seed.len()).ok_or("a seed has at most 32 bytes")?.copy_from_slice(seed.as_bytes());
    Ok(identity::Keypair::ed25519_from_bytes(bytes)?)
}

fn build(common: &Common, limits: Option<Limits>) -> Outcome<Swarm<Behaviour>> {
    macro_rules! with_security {
        ($security:expr) => {
            SwarmBuilder::with_existing_identity(keypair(common.seed.as_deref())?)
                .with_tokio()
                .with_tcp(tcp::Config::default(), $security, yamux::Config::default)?
                .with_quic()
                .with_relay_client(noise::Config::new, yamux::Config::default)?
                .with_behaviour(|key, relay_client| behaviour(key, relay_client, common, limits))?
                .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
                .build()
        };
    }
    Ok(match common.transport {
        Transport::Noise => with_security!(noise::Config::new),
        Transport::Tls => with_security!(tls::Config::new),
        _ => with_security!((noise::Config::new, tls::Config::new)),
    })
}

fn behaviour(
    key: &identity::Keypair,
    relay_client: relay::client::Behaviour,
    common: &Common,
    limits: Option<Limits>,
) -> Result<Behaviour, Box<dyn Error + Send + Sync>> {
    let id = key.public().to_peer_id();
    let serves = limits.is_some();
    Ok(Behaviour {
        relay_client,
        relay: limits.map(|limits| relay::Behaviour::new(id, relay_config(limits))).into(),
        identify: identify::Behaviour::new(
            identify::Config::new("/portkey/1.0.0".into(), key.public()).with_agent_version("rspeer".into()),
        ),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_millis(common.ping_ms))),
        dcutr: (!common.no_dcutr && !serves).then(|| dcutr::Behaviour::new(id)).into(),
        mdns: common.mdns.then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), id)).transpose()?.into(),
        kad: kademlia(id, common, serves)?,
        rendezvous: rendezvous::client::Behaviour::new(key.clone()),
        rendezvous_server: serves
            .then(|| rendezvous::server::Behaviour::new(rendezvous::server::Config::default().with_min_ttl(10)))
            .into(),
        autonat: (common.autonat || serves).then(|| autonat::v1::Behaviour::new(id, autonat_config())).into(),
        autonat_client: common.autonat.then(Default::default).into(),
        autonat_server: serves.then(Default::default).into(),
        stream: libp2p_stream::Behaviour::new(),
    })
}

fn relay_config(limits: Limits) -> relay::Config {
    relay::Config {
        max_circuit_bytes: limits.circuit_bytes,
        max_circuit_duration: Duration::from_secs(limits.circuit_seconds),
        ..Default::default()
    }
}

/// Loopback and private addresses count, and the first probe doesn't wait for a settled network.
fn autonat_config() -> autonat::v1::Config {
    autonat::v1::Config {
        only_global_ips: false,
        boot_delay: Duration::from_secs(2),
        use_connected: true,
        ..Default::default()
    }
}

fn kademlia(id: PeerId, common: &Common, serves: bool) -> Outcome<kad::Behaviour<kad::store::MemoryStore>> {
    let protocol = StreamProtocol::try_from_owned(common.kad_protocol.clone())?;
    let store = kad::store::MemoryStore::new(id);
    let mut kad = kad::Behaviour::with_config(id, store, kad::Config::new(protocol));
    kad.set_mode(Some(if serves { kad::Mode::Server } else { kad::Mode::Client }));
    Ok(kad)
}
