//! rspeer is the rust-libp2p end of the interop tests and of the benchmark. Every command prints one JSON
//! object a line, with the same kinds as `pt --json` where both have them (ready, listening).

mod announce;
mod dht;
mod dial;
mod listen;
mod node;
mod options;
mod probe;
mod raw_yamux;
mod relay;
mod report;
mod splice;
mod stream_half;

use clap::Parser;
use options::{Cli, Command};
use std::error::Error;
use tracing_subscriber::filter::LevelFilter;

pub type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main(worker_threads = 2)]
async fn main() -> Outcome {
    let level = std::env::var("RUST_LOG").ok().and_then(|level| level.parse().ok());
    tracing_subscriber::fmt().with_max_level(level.unwrap_or(LevelFilter::OFF)).with_writer(std::io::stderr).init();
    match Cli::parse().command {
        Command::Relay { common, limits } => relay::run(common, limits).await,
        Command::TunnelListen { common, target } => listen::run(common, target).await,
        Command::TunnelDial { common, dial } => dial::run(common, dial).await,
        Command::RawYamux { local } => raw_yamux::run(local).await,
        Command::Dht { common, dht } => dht::run(common, dht).await,
        Command::Probe { common, probe } => probe::run(common, probe).await,
    }
}
