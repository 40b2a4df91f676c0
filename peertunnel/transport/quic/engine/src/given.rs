//! What quinn would take from the system, and takes from the caller here: connection ids, and the time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid, TimeSource};
use ring::hmac;

const LENGTH: usize = 8; // bytes of an id
const NONCE: usize = 3; // bytes of them; the rest is a mark

/// Ids that only who has the seed foretells, with a mark by which we know ours, even those of an earlier life.
#[derive(Clone)]
pub struct Ids {
    pub seed: hmac::Key,
    pub marking: hmac::Key,
    pub drawn: u64,
}

impl Ids {
    fn marked(&self, nonce: &[u8]) -> ConnectionId {
        ConnectionId::new(&[nonce, &hmac::sign(&self.marking, nonce).as_ref()[NONCE..LENGTH]].concat())
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        self.drawn += 1;
        self.marked(&hmac::sign(&self.seed, &self.drawn.to_be_bytes()).as_ref()[..NONCE])
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        if self.marked(&id[..NONCE]) == *id { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The caller's time in seconds, by which tokens grow old.
#[derive(Default)]
pub struct Clock(pub AtomicU64);

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0.load(Relaxed))
    }
}
