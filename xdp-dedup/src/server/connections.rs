//! The connections that are open at once, of which there are so many and no more: who comes gets the
//! place of the one that has been idle for longest.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use tokio::{sync::Notify, task::AbortHandle};

/// Connections at once.
const MOST: usize = 64;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    /// Its client has not asked yet.
    Waiting,
    /// The answer is being made.
    Answering,
    /// The answer is on its way.
    Sending,
}

/// Where a connection says how far it is.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    stage: Arc<AtomicU8>,
    changed: Arc<Notify>,
}

impl Progress {
    pub(super) fn set(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
        self.changed.notify_one();
    }

    fn is(&self, stage: Stage) -> bool {
        self.stage.load(Ordering::Relaxed) == stage as u8
    }
}

/// Tells that a connection has ended, in whatever way.
struct End(Arc<Notify>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Those that are open, the oldest first.
#[derive(Default)]
pub(super) struct Connections {
    open: Vec<(Progress, AbortHandle)>,
    changed: Arc<Notify>,
}

impl Connections {
    /// Makes room for one more: closes the oldest one whose client has not asked yet, else the oldest
    /// whose client does not read its answer. Where all are being answered, which takes no longer than
    /// two readings of the maps, it waits for the first one that is.
    pub(super) async fn make_room(&mut self) {
        loop {
            self.open.retain(|(_, open)| !open.is_finished());
            if self.open.len() < MOST {
                return;
            }
            let oldest = |stage| {
                self.open
                    .iter()
                    .position(|(progress, _)| progress.is(stage))
            };
            if let Some(index) = oldest(Stage::Waiting).or_else(|| oldest(Stage::Sending)) {
                self.open.remove(index).1.abort();
                // Its file descriptor is closed when its task is run for the last time.
                return tokio::task::yield_now().await;
            }
            self.changed.notified().await;
        }
    }

    /// Starts a connection.
    pub(super) fn start<F>(&mut self, converse: impl FnOnce(Progress) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let progress = Progress {
            stage: Arc::new(AtomicU8::new(Stage::Waiting as u8)),
            changed: Arc::clone(&self.changed),
        };
        let end = End(Arc::clone(&self.changed));
        let conversation = converse(progress.clone());
        let connection = tokio::spawn(async move {
            let _end = end;
            conversation.await;
        });
        self.open.push((progress, connection.abort_handle()));
    }

    /// Closes the older half of those whose clients have not asked yet, or else of those whose clients
    /// do not read: where file descriptors lack, a scrape needs some too.
    pub(super) fn close_half_of_the_waiting(&mut self) {
        self.open.retain(|(_, open)| !open.is_finished());
        for stage in [Stage::Waiting, Stage::Sending] {
            let idle = || self.open.iter().filter(|(progress, _)| progress.is(stage));
            let half = idle().count().div_ceil(2);
            idle().take(half).for_each(|(_, idle)| idle.abort());
            if half > 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{self, poll_fn},
        task::Poll,
    };

    use super::*;

    fn add(connections: &mut Connections, stage: Stage) -> AbortHandle {
        connections.start(|progress| {
            progress.set(stage);
            future::pending()
        });
        connections.open.last().unwrap().1.clone()
    }

    #[tokio::test]
    async fn who_has_not_asked_goes_first_and_who_is_being_answered_never() {
        let mut connections = Connections::default();
        let answering = add(&mut connections, Stage::Answering);
        let sending = add(&mut connections, Stage::Sending);
        let waiting = add(&mut connections, Stage::Waiting);
        let waiting_too = add(&mut connections, Stage::Waiting);
        while connections.open.len() < MOST {
            connections.make_room().await;
            add(&mut connections, Stage::Answering);
        }
        for closed in [&waiting, &waiting_too, &sending] {
            assert!(!closed.is_finished());
            connections.make_room().await;
            assert!(closed.is_finished());
            add(&mut connections, Stage::Answering);
        }
        {
            let mut room = std::pin::pin!(connections.make_room());
            let asked = poll_fn(|context| Poll::Ready(room.as_mut().poll(context))).await;
            assert!(asked.is_pending());
        }
        assert!(!answering.is_finished());
        assert_eq!(connections.open.len(), MOST);
        connections.open[5].0.set(Stage::Sending);
        connections.make_room().await;
        assert_eq!(connections.open.len(), MOST - 1);
    }

    #[tokio::test]
    async fn half_of_those_who_wait_go_where_file_descriptors_lack() {
        let mut connections = Connections::default();
        let answering = add(&mut connections, Stage::Answering);
        let waiting: Vec<_> = (0..5)
            .map(|_| add(&mut connections, Stage::Waiting))
            .collect();
        for left in [2, 1, 0, 0] {
            connections.close_half_of_the_waiting();
            tokio::task::yield_now().await;
            let open = waiting.iter().filter(|one| !one.is_finished());
            assert_eq!(open.count(), left);
        }
        assert!(!answering.is_finished());
    }
}
