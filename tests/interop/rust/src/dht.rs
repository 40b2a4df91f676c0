//! A client of a Kademlia network: it announces a key, or looks again and again for whoever has done so.

use crate::{
    Outcome,
    announce::{Announcer, Goal},
    node::{BehaviourEvent, Node},
    options::{Common, Dht},
    report::emit,
};
use libp2p::{
    kad::{self, GetProvidersOk, QueryResult, RecordKey},
    swarm::SwarmEvent,
};
use serde_json::json;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(250);

pub async fn run(common: Common, dht: Dht) -> Outcome {
    let mut node = Node::start(&common, None, Announcer::new(&common, Goal::default())?).await?;
    node.report_ready();
    while !matches!(node.next().await, SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::RoutingUpdated { .. }))) {}
    if let Some(key) = &dht.provide {
        node.swarm.behaviour_mut().kad.start_providing(RecordKey::new(&bytes(key)?))?;
    }
    let wanted = dht.find.as_deref().map(bytes).transpose()?.map(|key| RecordKey::new(&key));
    if let Some(key) = &wanted {
        node.swarm.behaviour_mut().kad.get_providers(key.clone());
    }
    loop {
        let SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed { result, step, .. })) =
            node.next().await
        else {
            continue;
        };
        match result {
            QueryResult::StartProviding(done) => emit("provided", json!({"ok": done.is_ok()})),
            QueryResult::GetProviders(found) => {
                if let Ok(GetProvidersOk::FoundProviders { providers, .. }) = found {
                    for peer in providers {
                        emit("provider", json!({"peer_id": peer.to_string()}));
                    }
                }
                if let Some(key) = wanted.as_ref().filter(|_| step.last) {
                    tokio::time::sleep(PAUSE).await;
                    node.swarm.behaviour_mut().kad.get_providers(key.clone());
                }
            }
            _ => {}
        }
    }
}

fn bytes(hex: &str) -> Outcome<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2);
    digits.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
}
