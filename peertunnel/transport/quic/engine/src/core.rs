//! All connections of one UDP socket: their datagrams, their timers and what happens on them.
//!
//! Connections take turns at sending, those with a timer stand in an ordered set, and one in which quinn panics is
//! dropped without harm to the others.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{net::IpAddr, net::SocketAddr, sync::Arc, time::Instant};

use bytes::BytesMut;
use quinn_proto::{self as quinn, Connection, ConnectionHandle, DatagramEvent, Dir, Event, StreamEvent, Transmit};

const RETRY_ABOVE: usize = 32; // unfinished handshakes, from which on strangers must show that they get our answers
const MAX_HANDSHAKES: usize = 256; // unfinished handshakes of strangers; the oldest gives way
const MAX_RESPONSES: usize = 8; // to strangers, in what the caller sends at a time: half of that is for connections
const MAX_BATCH: usize = 65_507; // bytes; what one UDP send takes

/// What happened: its kind, the connection, its stream if it is about one, and why if the connection is lost.
pub type Happened = (&'static str, u64, Option<u64>, String);

struct Entry {
    connection: Connection,
    handle: ConnectionHandle,
    timer: Option<Instant>,
}

pub struct Core {
    pub endpoint: quinn::Endpoint,
    /// Everywhere, and on this machine, where packets may be large.
    pub configs: [(quinn::ClientConfig, Arc<quinn::ServerConfig>); 2],
    entries: HashMap<u64, Entry>,
    ids: HashMap<ConnectionHandle, u64>,
    next: u64, // numbers are never used again, so that a late call for a dead connection finds nothing
    queue: BTreeSet<u64>, // of those that may have something to send
    last: u64, // which had its turn
    pub timers: BTreeSet<(Instant, u64)>,
    handshakes: BTreeSet<u64>, // begun by strangers, the oldest first
    pub over: BTreeSet<u64>,   // of which nothing is left but what can be read
    responses: VecDeque<(Transmit, Vec<u8>)>,
    pub output: Vec<u8>, // what `transmit` gives; reused, for quinn makes room for a whole batch each time
    pub events: Vec<Happened>,
}

impl Core {
    pub fn new(endpoint: quinn::Endpoint, configs: [(quinn::ClientConfig, Arc<quinn::ServerConfig>); 2]) -> Self {
        let (entries, ids, next, queue, last, timers, handshakes, over, responses, output, events) = Default::default();
        Self { endpoint, configs, entries, ids, next, queue, last, timers, handshakes, over, responses, output, events }
    }

    pub fn add(&mut self, handle: ConnectionHandle, connection: Connection) -> u64 {
        let id = self.next;
        self.next += 1;
        self.ids.insert(handle, id);
        self.entries.insert(id, Entry { connection, handle, timer: None });
        self.drive(id);
        id
    }

    /// Take what came in one read: datagrams from one address, all of one size but the last.
    ///
    /// Each gets memory of its own: one that nobody reads would hold that of all, and quinn counts on nothing else.
    pub fn receive(&mut self, data: &[u8], size: usize, from: SocketAddr, local: Option<IpAddr>, now: Instant) {
        let mut touched = BTreeSet::new();
        for datagram in data.chunks(size.max(1)) {
            let (datagram, mut answer) = (BytesMut::from(datagram), Vec::new());
            let handle = || self.endpoint.handle(now, from, local, None, datagram, &mut answer);
            match catch_unwind(AssertUnwindSafe(handle)).ok().flatten() {
                None => {}
                Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                    let Some(&id) = self.ids.get(&handle) else { continue };
                    self.with(id, |connection| connection.handle_event(event));
                    touched.insert(id);
                }
                Some(DatagramEvent::NewConnection(incoming)) => self.meet(incoming, now),
                Some(DatagramEvent::Response(transmit)) => self.responses.push_back((transmit, answer)),
            }
        }
        self.responses.truncate(MAX_RESPONSES);
        touched.into_iter().for_each(|id| self.drive(id));
    }

    /// Take a stranger in, or have it prove its address first: nobody fills our tables under borrowed ones.
    fn meet(&mut self, incoming: quinn::Incoming, now: Instant) {
        let mut answer = Vec::new();
        if self.handshakes.len() >= RETRY_ABOVE && !incoming.remote_address_validated() {
            let transmit = self.endpoint.retry(incoming, &mut answer).ok();
            return self.responses.extend(transmit.map(|transmit| (transmit, answer)));
        }
        if let Some(oldest) = (self.handshakes.len() >= MAX_HANDSHAKES).then(|| self.handshakes.pop_first()).flatten() {
            self.act(oldest, |connection| connection.close(now, 0u8.into(), Default::default()));
        }
        let config = self.configs[usize::from(incoming.remote_address().ip().is_loopback())].1.clone();
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
            self.output = answer;
            return Some(transmit);
        }
        while let Some(id) = self.queue.range(self.last + 1..).chain(&self.queue).next().copied() {
            self.last = id;
            let mut output = std::mem::take(&mut self.output);
            output.clear();
            let transmit = self.with(id, |connection| {
                let most = (MAX_BATCH / usize::from(connection.current_mtu())).max(1);
                connection.poll_transmit(now, segments.clamp(1, most), &mut output)
            });
            self.output = output;
            if let Some(Some(transmit)) = transmit {
                self.schedule(id);
                return Some(transmit);
            }
            self.drive(id);
            self.queue.remove(&id);
        }
        None
    }

    /// Do something with a living connection, and then whatever follows from it.
    pub fn act<T>(&mut self, id: u64, work: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        let done = self.with(id, work);
        self.drive(id);
        done
    }

    /// Look at a living connection.
    pub fn with<T>(&mut self, id: u64, work: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        let connection = &mut self.entries.get_mut(&id)?.connection;
        catch_unwind(AssertUnwindSafe(|| work(connection))).map_err(|_| self.drop_broken(id)).ok()
    }

    fn schedule(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let before = std::mem::replace(&mut entry.timer, entry.connection.poll_timeout());
        if before != entry.timer {
            before.map(|when| self.timers.remove(&(when, id)));
            self.timers.extend(entry.timer.map(|when| (when, id)));
        }
    }

    /// Pass events between a connection and the endpoint, and on to the caller; then it may have something to send.
    fn drive(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        self.queue.insert(id);
        let driven = catch_unwind(AssertUnwindSafe(|| {
            let connection = &mut entry.connection;
            while let Some(event) = connection.poll_endpoint_events().filter(|event| !event.is_drained()) {
                let answer = self.endpoint.handle_event(entry.handle, event);
                answer.into_iter().for_each(|event| connection.handle_event(event));
            }
            while let Some(event) = connection.poll() {
                tell(id, connection, event, &mut self.events);
            }
            (!connection.is_handshaking()).then(|| self.handshakes.remove(&id));
            self.over.extend(connection.is_drained().then_some(id));
        }));
        match driven {
            Ok(()) => self.schedule(id),
            Err(_) => self.drop_broken(id),
        }
    }

    /// Give up a connection whose state can't be trusted any more.
    fn drop_broken(&mut self, id: u64) {
        self.forget(id);
        self.events.push(("lost", id, None, "internal error".into()));
    }

    pub fn forget(&mut self, id: u64) {
        self.handshakes.remove(&id);
        let Some(entry) = self.entries.remove(&id) else { return };
        self.ids.remove(&entry.handle);
        entry.timer.map(|when| self.timers.remove(&(when, id)));
        let drain = || self.endpoint.handle_event(entry.handle, quinn::EndpointEvent::drained());
        let _ = catch_unwind(AssertUnwindSafe(drain));
    }
}

/// Translate what quinn tells of a connection.
fn tell(id: u64, connection: &mut Connection, event: Event, events: &mut Vec<Happened>) {
    let (kind, stream) = match event {
        Event::Connected => ("connected", None),
        Event::ConnectionLost { reason } => {
            let by_us = matches!(reason, quinn::ConnectionError::LocallyClosed);
            return events.push(("lost", id, None, if by_us { String::new() } else { reason.to_string() }));
        }
        Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
            let opened = std::iter::from_fn(|| connection.streams().accept(Dir::Bi));
            return events.extend(opened.map(|stream| ("opened", id, Some(stream.into()), String::new())));
        }
        Event::Stream(StreamEvent::Readable { id }) => ("readable", Some(id.into())),
        Event::Stream(StreamEvent::Writable { id }) => ("writable", Some(id.into())),
        Event::Stream(StreamEvent::Stopped { id, error_code }) => {
            let _ = connection.send_stream(id).reset(error_code); // RFC 9000, section 3.5; or it would never be over
            ("stopped", Some(id.into()))
        }
        Event::Stream(StreamEvent::Finished { id }) => ("delivered", Some(id.into())),
        Event::Stream(StreamEvent::Available { dir: Dir::Bi }) => ("available", None),
        _ => return,
    };
    events.push((kind, id, stream, String::new()));
}
