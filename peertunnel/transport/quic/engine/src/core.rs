//! All connections of one UDP socket: their datagrams, their timers and what happens on them.
//!
//! Connections take turns at sending, those with a timer stand in an ordered set, and one in which quinn panics is
//! dropped without harm to the others.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{sync::Arc, time::Instant};

use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointEvent, Event,
    Incoming, ServerConfig, StreamEvent, Transmit,
};

const RETRY_ABOVE: usize = 32; // unfinished handshakes, from which on strangers must show that they get our answers
const MAX_HANDSHAKES: usize = 256; // unfinished handshakes of strangers; the oldest gives way
const MAX_BATCH: usize = 65_507; // bytes; what one UDP send takes

/// What happened: its kind, the connection, its stream if it is about one, and why if the connection is lost.
pub type Happened = (&'static str, u64, Option<u64>, String);

struct Entry {
    connection: Connection,
    handle: ConnectionHandle,
    timer: Option<Instant>,
    is_queued: bool,
}

pub struct Core {
    pub endpoint: Endpoint,
    clients: [ClientConfig; 2], // everywhere, and on this machine, where packets may be large
    servers: [Arc<ServerConfig>; 2],
    entries: HashMap<u64, Entry>,
    by_handle: HashMap<ConnectionHandle, u64>,
    next: u64, // ids are never used again, so that a late call for a dead connection finds nothing
    queue: VecDeque<u64>,
    pub timers: BTreeSet<(Instant, u64)>,
    handshakes: BTreeSet<u64>, // begun by strangers, the oldest first
    responses: VecDeque<(Transmit, Vec<u8>)>,
    pub datagrams: Vec<u8>, // what `transmit` gives; reused, for quinn makes room for a whole batch each time
    pub events: Vec<Happened>,
}

impl Core {
    pub fn new(endpoint: Endpoint, clients: [ClientConfig; 2], servers: [Arc<ServerConfig>; 2]) -> Self {
        let (entries, by_handle, next, queue, responses) = Default::default();
        let (timers, handshakes, events, datagrams) = Default::default();
        Self { endpoint, clients, servers, entries, by_handle, next, queue, timers, handshakes, responses, events, datagrams }
    }

    pub fn connect(&mut self, to: SocketAddr, now: Instant) -> Result<u64, String> {
        let config = self.clients[usize::from(to.ip().is_loopback())].clone();
        let connected = self.endpoint.connect(now, config, to, "libp2p");
        connected.map(|(handle, connection)| self.add(handle, connection)).map_err(|error| error.to_string())
    }

    fn add(&mut self, handle: ConnectionHandle, connection: Connection) -> u64 {
        let id = self.next;
        self.next += 1;
        self.by_handle.insert(handle, id);
        self.entries.insert(id, Entry { connection, handle, timer: None, is_queued: false });
        self.touched(id);
        id
    }

    /// Take what came in one read: datagrams from one address, all of `stride` bytes but the last.
    pub fn receive(
        &mut self,
        mut data: BytesMut,
        stride: usize,
        from: SocketAddr,
        local: Option<IpAddr>,
        now: Instant,
    ) {
        let mut touched = BTreeSet::new();
        while !data.is_empty() {
            let (datagram, mut answer) = (data.split_to(stride.clamp(1, data.len())), Vec::new());
            let handle = || self.endpoint.handle(now, from, local, None, datagram, &mut answer);
            match catch_unwind(AssertUnwindSafe(handle)).ok().flatten() {
                None => {}
                Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                    if let Some(&id) = self.by_handle.get(&handle) {
                        self.with(id, |connection| connection.handle_event(event));
                        touched.insert(id);
                    }
                }
                Some(DatagramEvent::NewConnection(incoming)) => self.meet(incoming, now),
                Some(DatagramEvent::Response(transmit)) => self.responses.push_back((transmit, answer)),
            }
        }
        touched.into_iter().for_each(|id| self.touched(id));
    }

    /// Take a stranger in, or have it prove its address first: nobody fills our tables under borrowed ones.
    fn meet(&mut self, incoming: Incoming, now: Instant) {
        let mut answer = Vec::new();
        if self.handshakes.len() >= RETRY_ABOVE && !incoming.remote_address_validated() {
            let transmit = self.endpoint.retry(incoming, &mut answer).ok();
            return self.responses.extend(transmit.map(|transmit| (transmit, answer)));
        }
        if self.handshakes.len() >= MAX_HANDSHAKES {
            if let Some(oldest) = self.handshakes.pop_first() {
                self.act(oldest, |connection| connection.close(now, 0u8.into(), Default::default()));
            }
        }
        let config = self.servers[usize::from(incoming.remote_address().ip().is_loopback())].clone();
        let accept = || self.endpoint.accept(incoming, now, &mut answer, Some(config)).map_err(Box::new);
        match catch_unwind(AssertUnwindSafe(accept)) {
            Ok(Ok((handle, connection))) => {
                let id = self.add(handle, connection);
                self.handshakes.insert(id);
            }
            Ok(Err(error)) => self.responses.extend(error.response.map(|transmit| (transmit, answer))),
            Err(_) => {}
        }
    }

    /// The next datagrams to one address: answers to strangers first, then connections in turn.
    pub fn transmit(&mut self, segments: usize, now: Instant) -> Option<Transmit> {
        if let Some((transmit, answer)) = self.responses.pop_front() {
            self.datagrams = answer;
            return Some(transmit);
        }
        while let Some(id) = self.queue.pop_front() {
            let mut datagrams = std::mem::take(&mut self.datagrams);
            datagrams.clear();
            let transmit = self.with(id, |connection| {
                let most = (MAX_BATCH / usize::from(connection.current_mtu())).max(1);
                connection.poll_transmit(now, segments.clamp(1, most), &mut datagrams)
            });
            self.datagrams = datagrams;
            self.entries.get_mut(&id).into_iter().for_each(|entry| entry.is_queued = false);
            if let Some(Some(transmit)) = transmit {
                self.schedule(id);
                self.enqueue(id);
                return Some(transmit);
            }
            self.drive(id);
        }
        None
    }

    pub fn handle_timeouts(&mut self, now: Instant) {
        while let Some((_, id)) = self.timers.first().copied().filter(|(when, _)| *when <= now) {
            self.act(id, |connection| connection.handle_timeout(now));
        }
    }

    /// Do something with a living connection, and then whatever follows from it.
    pub fn act<T>(&mut self, id: u64, work: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        let done = self.with(id, work);
        self.touched(id);
        done
    }

    /// Look at a living connection.
    pub fn with<T>(&mut self, id: u64, work: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        let connection = &mut self.entries.get_mut(&id)?.connection;
        let done = catch_unwind(AssertUnwindSafe(|| work(connection)));
        if done.is_err() {
            self.drop_broken(id);
        }
        done.ok()
    }

    fn touched(&mut self, id: u64) {
        self.drive(id);
        self.enqueue(id);
    }

    fn enqueue(&mut self, id: u64) {
        if let Some(entry) = self.entries.get_mut(&id).filter(|entry| !entry.is_queued) {
            entry.is_queued = true;
            self.queue.push_back(id);
        }
    }

    fn schedule(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let timer = entry.connection.poll_timeout();
        if timer != entry.timer {
            let before = std::mem::replace(&mut entry.timer, timer);
            before.map(|when| self.timers.remove(&(when, id)));
            self.timers.extend(timer.map(|when| (when, id)));
        }
    }

    /// Pass events between a connection and the endpoint, and on to the caller.
    fn drive(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let driven = catch_unwind(AssertUnwindSafe(|| {
            let connection = &mut entry.connection;
            loop {
                if let Some(event) = connection.poll_endpoint_events() {
                    let answer = self.endpoint.handle_event(entry.handle, event);
                    answer.into_iter().for_each(|event| connection.handle_event(event));
                } else if let Some(event) = connection.poll() {
                    tell(id, connection, event, &mut self.events);
                } else {
                    break;
                }
            }
            if !connection.is_handshaking() {
                self.handshakes.remove(&id);
            }
            connection.is_drained()
        }));
        match driven {
            Ok(false) => self.schedule(id),
            Ok(true) => self.forget(id),
            Err(_) => self.drop_broken(id),
        }
    }

    /// Give up a connection whose state can't be trusted any more.
    fn drop_broken(&mut self, id: u64) {
        if let Some(handle) = self.entries.get(&id).map(|entry| entry.handle) {
            let drain = || self.endpoint.handle_event(handle, EndpointEvent::drained());
            let _ = catch_unwind(AssertUnwindSafe(drain));
            self.forget(id);
            self.events.push(("lost", id, None, "internal error".into()));
        }
    }

    fn forget(&mut self, id: u64) {
        self.handshakes.remove(&id);
        if let Some(entry) = self.entries.remove(&id) {
            self.by_handle.remove(&entry.handle);
            entry.timer.map(|when| self.timers.remove(&(when, id)));
        }
    }
}

/// Translate what quinn tells of a connection.
fn tell(id: u64, connection: &mut Connection, event: Event, events: &mut Vec<Happened>) {
    let (kind, stream, reason) = match event {
        Event::Connected => ("connected", None, String::new()),
        Event::ConnectionLost { reason: ConnectionError::LocallyClosed } => ("lost", None, String::new()),
        Event::ConnectionLost { reason } => ("lost", None, reason.to_string()),
        Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
            while let Some(stream) = connection.streams().accept(Dir::Bi) {
                events.push(("opened", id, Some(stream.into()), String::new()));
            }
            return;
        }
        Event::Stream(StreamEvent::Readable { id }) => ("readable", Some(id.into()), String::new()),
        Event::Stream(StreamEvent::Writable { id }) => ("writable", Some(id.into()), String::new()),
        Event::Stream(StreamEvent::Stopped { id, .. }) => ("stopped", Some(id.into()), String::new()),
        Event::Stream(StreamEvent::Finished { id }) => ("delivered", Some(id.into()), String::new()),
        Event::Stream(StreamEvent::Available { dir: Dir::Bi }) => ("available", None, String::new()),
        _ => return,
    };
    events.push((kind, id, stream, reason));
}
