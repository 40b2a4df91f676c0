//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use libp2p::{Multiaddr, PeerId};
use std::net::SocketAddr;

#[derive(Parser)]
#[command(name = "rspeer")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Relay (v2 hop) that is a rendezvous point, a Kademlia node and an `AutoNAT` server too
    Relay {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        limits: Limits,
    },
    /// Lead every tunnel stream to the target
    TunnelListen {
        #[command(flatten)]
        common: Common,
        #[arg(long)]
        target: SocketAddr,
    },
    /// Open a tunnel stream for every local connection
    TunnelDial {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        dial: Dial,
    },
    /// Yamux over bare TCP, for its frames
    RawYamux {
        #[arg(long, default_value = "127.0.0.1:0")]
        local: SocketAddr,
    },
    /// Provide or find a key in a Kademlia network, as a client of it
    Dht {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        dht: Dht,
    },
    /// Connect, report identify and some pings, exit
    Probe {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        probe: Probe,
    },
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Transport {
    Noise,
    Tls,
    Quic,
    All,
}

#[derive(Args, Clone)]
pub struct Common {
    /// Fixed key: the Ed25519 seed is this text, padded with zero bytes to 32
    #[arg(long)]
    pub seed: Option<String>,
    #[arg(long, value_enum, default_value = "all")]
    pub transport: Transport,
    /// Multiaddr to listen on (repeatable)
    #[arg(long)]
    pub listen: Vec<Multiaddr>,
    /// Announce and search on the LAN
    #[arg(long)]
    pub mdns: bool,
    #[arg(long)]
    pub autonat: bool,
    #[arg(long)]
    pub no_dcutr: bool,
    /// Take listening addresses for reachable ones, without proof
    #[arg(long)]
    pub external: bool,
    /// Rendezvous point to register or to discover at
    #[arg(long)]
    pub rendezvous: Option<Multiaddr>,
    #[arg(long, default_value = "portkey")]
    pub namespace: String,
    /// Relay to reserve a slot at
    #[arg(long)]
    pub relay: Option<Multiaddr>,
    /// Copy buffer per direction
    #[arg(long, default_value_t = 64)]
    pub buffer_kib: usize,
    /// Close relayed connections to a peer once a direct one exists
    #[arg(long)]
    pub close_relayed: bool,
    #[arg(long, default_value_t = 15000)]
    pub ping_ms: u64,
    #[arg(long, default_value = "/ipfs/kad/1.0.0")]
    pub kad_protocol: String,
    /// Multiaddr of a Kademlia node to begin with, ending in /p2p/ID (repeatable)
    #[arg(long)]
    pub bootstrap: Vec<Multiaddr>,
}

#[derive(Args, Clone, Copy)]
pub struct Limits {
    /// Most bytes one circuit may carry
    #[arg(long, default_value_t = 131_072)]
    pub circuit_bytes: u64,
    /// Longest life of one circuit
    #[arg(long, default_value_t = 120)]
    pub circuit_seconds: u64,
}

#[derive(Args)]
pub struct Dial {
    /// Where tunnels start
    #[arg(long, default_value = "127.0.0.1:0")]
    pub local: SocketAddr,
    /// Multiaddr ending in /p2p/ID
    #[arg(long)]
    pub peer: Option<Multiaddr>,
    /// With --mdns or --rendezvous: this peer only
    #[arg(long)]
    pub peer_id: Option<PeerId>,
    /// Seconds to wait for a direct connection before serving
    #[arg(long, default_value_t = 0)]
    pub wait_direct: u64,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Dht {
    /// Key to announce, in hex
    #[arg(long)]
    pub provide: Option<String>,
    /// Key whose providers to find, in hex
    #[arg(long)]
    pub find: Option<String>,
}

#[derive(Args)]
pub struct Probe {
    /// Multiaddr ending in /p2p/ID
    #[arg(long)]
    pub peer: Multiaddr,
    #[arg(long, default_value_t = 3)]
    pub pings: u32,
    /// Look this peer up by Kademlia
    #[arg(long)]
    pub kad_find: Option<PeerId>,
    /// Discover at the peer, which is a rendezvous point
    #[arg(long)]
    pub discover: bool,
    /// Register at the peer, which is a rendezvous point
    #[arg(long)]
    pub register: bool,
    #[arg(long, default_value_t = 8)]
    pub seconds: u64,
}
