//! A short visit: identify, pings, and on request Kademlia and rendezvous.

use crate::{
    Outcome,
    announce::{Announcer, Goal},
    node::{BehaviourEvent, Node},
    options::{Common, Probe},
};
use libp2p::{identify, kad, swarm::SwarmEvent};
use std::time::Duration;
use tokio::time::timeout;

const PING_MS: u64 = 500;

pub async fn run(mut common: Common, probe: Probe) -> Outcome {
    common.ping_ms = common.ping_ms.min(PING_MS);
    if probe.discover || probe.register {
        common.rendezvous = Some(probe.peer.clone());
    }
    let goal = Goal { announce: probe.register, search: probe.discover, wanted: None };
    let mut node = Node::start(&common, None, Announcer::new(&common, goal)?).await?;
    node.swarm.dial(probe.peer.clone())?;
    // Kademlia and rendezvous have no last event: such a visit takes all its time.
    let _over = timeout(Duration::from_secs(probe.seconds), visit(&mut node, &probe)).await;
    Ok(())
}

async fn visit(node: &mut Node, probe: &Probe) {
    let stays = probe.discover || probe.register || probe.kad_find.is_some();
    let (mut identified, mut pings, mut to_find) = (false, 0, probe.kad_find);
    while stays || !identified || pings < probe.pings {
        match node.next().await {
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { .. })) => identified = true,
            SwarmEvent::Behaviour(BehaviourEvent::Ping(_)) => pings += 1,
            SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::RoutingUpdated { .. })) => {
                if let Some(wanted) = to_find.take() {
                    node.swarm.behaviour_mut().kad.get_closest_peers(wanted);
                }
            }
            _ => {}
        }
    }
}
