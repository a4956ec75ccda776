//! systemd's watchdog (`WatchdogSec=`): it starts a service anew that has not said for so long that it
//! goes on.

use std::future;

use tokio::time::{Interval, MissedTickBehavior, interval};

/// When the service manager is to be told that this process goes on.
pub struct Watchdog {
    /// None where nobody has asked for it.
    ticks: Option<Interval>,
}

impl Watchdog {
    /// One that is due twice in the time that the service manager allows this process, or never where
    /// it has not asked.
    pub fn new() -> Self {
        let asked = sd_notify::watchdog_enabled();
        // An interval of nothing is none.
        let pace = asked.map(|time| time / 2).filter(|pace| !pace.is_zero());
        Self {
            ticks: pace.map(|pace| {
                let mut ticks = interval(pace);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                ticks
            }),
        }
    }

    /// Waits until it is time to say so. Nothing is lost if it is dropped meanwhile.
    pub async fn due(&mut self) {
        match &mut self.ticks {
            Some(ticks) => drop(ticks.tick().await),
            None => future::pending().await,
        }
    }
}

impl Default for Watchdog {
    fn default() -> Self {
        Self::new()
    }
}
