//! The way of events to whoever shows them: bounded, and in nobody's way for long.
//!
//! A burst of lines waits for a reader who reads, so that nothing is lost to `meshwork up … > file`. A reader who takes nothing for
//! [`PATIENCE`] holds no instance up: from then on what finds the queue full is dropped, and a [`Event::Dropped`] stands in its place.
//! Changes of state never wait, and have room of their own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::name::Name;
use tokio::sync::Notify;

use super::{Event, State};

/// Lines that wait to be read.
const LINES_MAX: usize = 1_024;
/// Changes of state that wait beyond that.
const STATES_MAX: usize = 256;
/// How long a line waits for a reader who takes nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// The instances' end; cheap to clone.
#[derive(Debug, Clone)]
pub struct Events(Arc<Writer>);

/// The reader's end.
#[derive(Debug)]
pub struct Listener(Arc<Shared>);

/// What the clones of [`Events`] share; the last one to go closes the queue.
#[derive(Debug)]
struct Writer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    // A lock for a moment, by whoever puts or takes one event.
    queue: Mutex<Queue>,
    came: Notify,
    room: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    /// How many were taken so far.
    taken: u64,
    /// The reader took nothing for too long.
    stalled: bool,
    /// Nobody writes any more.
    closed: bool,
    /// Nobody reads any more.
    abandoned: bool,
}

/// Makes both ends.
#[must_use]
pub fn channel() -> (Events, Listener) {
    let shared = Arc::new(Shared::default());
    (Events(Arc::new(Writer(shared.clone()))), Listener(shared))
}

impl Events {
    /// Passes on a line of an instance. It waits for a reader who is slow, and not for one who does not read.
    pub async fn line(&self, instance: &Name, text: String) {
        let shared = &*self.0.0;
        let mut event = Event::Line { instance: instance.clone(), text };
        loop {
            let room = shared.room.notified();
            let taken = {
                let mut queue = shared.lock();
                match queue.put(event, LINES_MAX) {
                    None => break,
                    Some(back) if queue.stalled || queue.abandoned => {
                        drop(back);
                        queue.drop_one();
                        break;
                    }
                    Some(back) => event = back,
                }
                queue.taken
            };
            if tokio::time::timeout(PATIENCE, room).await.is_err() {
                let mut queue = shared.lock();
                queue.stalled |= queue.taken == taken;
            }
        }
        shared.came.notify_one();
    }

    /// Passes on that an instance is in another state, at once.
    pub fn state(&self, instance: &Name, state: State) {
        self.put(Event::State { instance: instance.clone(), state });
    }

    /// Passes on what happened to the mesh as a whole, at once.
    pub fn mesh(&self, text: impl Into<String>) {
        self.put(Event::Mesh { text: text.into() });
    }

    fn put(&self, event: Event) {
        let shared = &*self.0.0;
        let mut queue = shared.lock();
        if queue.put(event, LINES_MAX + STATES_MAX).is_some() {
            queue.drop_one();
        }
        drop(queue);
        shared.came.notify_one();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.came.notify_one();
    }
}

impl Listener {
    /// The next event; `None` when no more will come.
    pub async fn recv(&mut self) -> Option<Event> {
        loop {
            {
                let mut queue = self.0.lock();
                if let Some(event) = queue.take() {
                    drop(queue);
                    self.0.room.notify_waiters();
                    return Some(event);
                }
                if queue.closed {
                    return None;
                }
            }
            self.0.came.notified().await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.lock().abandoned = true;
        self.0.room.notify_waiters();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Puts an event where fewer than `max` wait; gives it back where not.
    fn put(&mut self, event: Event, max: usize) -> Option<Event> {
        if self.abandoned || self.events.len() >= max {
            return Some(event);
        }
        self.events.push_back(event);
        None
    }

    /// Marks the place of an event that is not passed on. The mark itself may stand beyond the bound: there is one at the end at most.
    fn drop_one(&mut self) {
        match self.events.back_mut() {
            Some(Event::Dropped { events }) => *events += 1,
            _ if self.abandoned => {}
            _ => self.events.push_back(Event::Dropped { events: 1 }),
        }
    }

    fn take(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.taken += 1;
        self.stalled = false;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Name {
        Name::new("a-0").unwrap()
    }

    async fn lines(events: &Events, count: usize) {
        for number in 0..count {
            events.line(&name(), number.to_string()).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_who_does_not_read_holds_nobody_up_and_hears_what_is_missing() {
        let (events, mut listener) = channel();
        let begun = tokio::time::Instant::now();
        lines(&events, LINES_MAX + 500).await;
        assert_eq!(begun.elapsed(), PATIENCE, "one wait for all of them, not one for each");
        events.state(&name(), State::Ready);
        drop(events);
        let mut heard = Vec::new();
        while let Some(event) = listener.recv().await {
            heard.push(event);
        }
        assert_eq!(heard.len(), LINES_MAX + 2);
        assert_eq!(heard[LINES_MAX], Event::Dropped { events: 500 });
        assert_eq!(heard[LINES_MAX + 1], Event::State { instance: name(), state: State::Ready });
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_who_is_slow_misses_nothing() {
        let (events, mut listener) = channel();
        let count = LINES_MAX + 40;
        let writing = tokio::spawn(async move { lines(&events, count).await });
        let mut heard = 0;
        while let Some(event) = listener.recv().await {
            assert!(matches!(event, Event::Line { .. }), "{event:?}");
            heard += 1;
            tokio::time::sleep(PATIENCE / 2).await;
        }
        assert_eq!(heard, count);
        writing.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_who_comes_back_is_waited_for_again() {
        let (events, mut listener) = channel();
        lines(&events, LINES_MAX + 1).await;
        listener.recv().await.unwrap();
        let begun = tokio::time::Instant::now();
        // There is one more than the bound, the mark, until the second is taken.
        lines(&events, 1).await;
        assert_eq!(begun.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn states_have_room_of_their_own_and_a_bound() {
        let (events, mut listener) = channel();
        lines(&events, LINES_MAX).await;
        for _ in 0..STATES_MAX + 7 {
            events.state(&name(), State::Starting);
        }
        drop(events);
        let mut last = None;
        while let Some(event) = listener.recv().await {
            last = Some(event);
        }
        assert_eq!(last, Some(Event::Dropped { events: 7 }));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_reader_who_has_gone() {
        let (events, listener) = channel();
        drop(listener);
        let begun = tokio::time::Instant::now();
        lines(&events, 3 * LINES_MAX).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
