//! The server that others meet at.

use crate::{
    Outcome,
    announce::{Announcer, Goal},
    node::Node,
    options::{Common, Limits},
};

pub async fn run(mut common: Common, limits: Limits) -> Outcome {
    // A relay must know an address of its own before it gives slots.
    common.external = true;
    let announcer = Announcer::new(&common, Goal::default())?;
    let node = Node::start(&common, Some(limits), announcer).await?;
    node.report_ready();
    node.run().await
}
