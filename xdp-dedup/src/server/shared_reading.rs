//! One reading at a time for all who ask: many scrapes at once cost two readings of the maps and not
//! as many as there are.

use std::{sync::Arc, time::Instant};

use anyhow::{Context as _, Result, anyhow};
use tokio::sync::Mutex;

/// The last reading, for those who asked before it began.
pub(super) struct SharedReading<T>(Arc<Mutex<Option<Reading<T>>>>);

struct Reading<T> {
    begun: Instant,
    /// In words where it failed.
    result: Result<T, String>,
}

impl<T> Default for SharedReading<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(None)))
    }
}

impl<T: Clone + Send + 'static> SharedReading<T> {
    /// What `read` reads, or what another one has read that began after this call. It goes on if the
    /// client leaves: else one who comes and goes could have many readings under way.
    pub(super) async fn read(
        &self,
        read: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let asked = Instant::now();
        let last = Arc::clone(&self.0);
        let reading = tokio::spawn(async move {
            // In the order in which they asked.
            let mut last = last.lock().await;
            if let Some(reading) = last.as_ref().filter(|reading| reading.begun >= asked) {
                return reading.result.clone();
            }
            let begun = Instant::now();
            let result = read.await.map_err(|error| format!("{error:#}"));
            let reading = Reading { begun, result };
            last.insert(reading).result.clone()
        });
        let result = reading.await.context("the reading was interrupted")?;
        result.map_err(|error| anyhow!(error))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Poll,
    };

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn many_at_once_share_two_readings_and_the_next_one_gets_its_own() {
        let shared = SharedReading::default();
        let readings = Arc::new(AtomicUsize::new(0));
        let read = || {
            let readings = Arc::clone(&readings);
            async move {
                tokio::task::yield_now().await;
                Ok(readings.fetch_add(1, Ordering::Relaxed) + 1)
            }
        };
        let all = join_all((0..100).map(|_| shared.read(read()))).await;
        let last = all.into_iter().map(Result::unwrap).max();
        assert!(last <= Some(2), "{last:?} readings");
        let next = shared.read(read()).await.unwrap();
        assert_eq!(Some(next), last.map(|last| last + 1));
    }

    #[tokio::test]
    async fn a_reading_goes_on_without_the_one_who_asked() {
        let shared = SharedReading::default();
        let read = |number: u32| async move {
            tokio::task::yield_now().await;
            Ok(number)
        };
        let asked = Instant::now();
        {
            let mut leaves = std::pin::pin!(shared.read(read(1)));
            // Asked once, and then left.
            assert!(
                std::future::poll_fn(|context| Poll::Ready(
                    leaves.as_mut().poll(context).is_pending()
                ))
                .await
            );
        }
        while shared.0.lock().await.is_none() {
            tokio::task::yield_now().await;
        }
        let last = shared.0.lock().await;
        let last = last.as_ref().unwrap();
        assert!(last.begun >= asked && last.result == Ok(1));
    }

    #[tokio::test]
    async fn what_went_wrong_is_told_to_all() {
        let shared = SharedReading::<()>::default();
        let fails = || async { Err(anyhow!("no such map").context("cannot read")) };
        let errors = join_all((0..3).map(|_| shared.read(fails()))).await;
        for error in errors {
            assert_eq!(error.unwrap_err().to_string(), "cannot read: no such map");
        }
    }
}
