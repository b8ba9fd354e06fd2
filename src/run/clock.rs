//! Two times of a run: the wall clock over all its processes, and the seconds of each training step.
use std::time::Instant;

/// Steps at the start of a process that do not count: allocators and caches are still cold.
const WARM_UP: usize = 3;

pub(super) struct Clock {
    start: Instant,
    /// Wall time of the processes before this one, up to their last checkpoint.
    before: f64,
    /// When the step at hand began; `None` while paused.
    mark: Option<Instant>,
    /// Of this step's time, what passed before a pause within it.
    carried: f64,
    warm_up: usize,
    /// Seconds of each step that counts, over all processes.
    pub(super) steps: Vec<f32>,
}

impl Clock {
    pub(super) fn new(before: f64, steps: Vec<f32>) -> Self {
        let now = Instant::now();
        Clock { start: now, before, mark: Some(now), carried: 0.0, warm_up: WARM_UP, steps }
    }

    pub(super) fn wall_s(&self) -> f64 {
        self.before + self.start.elapsed().as_secs_f64()
    }

    pub(super) fn step_done(&mut self, now: Instant) {
        let last = self.mark.replace(now).map_or(0.0, |mark| (now - mark).as_secs_f64());
        let seconds = std::mem::take(&mut self.carried) + last;
        match self.warm_up {
            0 => self.steps.push(seconds as f32),
            _ => self.warm_up -= 1,
        }
    }

    pub(super) fn pause(&mut self) {
        if let Some(mark) = self.mark.take() {
            self.carried += mark.elapsed().as_secs_f64();
        }
    }

    pub(super) fn resume(&mut self) {
        self.mark.get_or_insert_with(Instant::now);
    }

    pub(super) fn paused(&self) -> bool {
        self.mark.is_none()
    }

    /// One over the median time of a step.
    pub(super) fn steps_per_second(&self) -> Option<f64> {
        let mut times = self.steps.clone();
        if times.is_empty() {
            return None;
        }
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable_by(middle, f32::total_cmp);
        Some(1.0 / *median as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;
    use std::time::Duration;

    #[test]
    fn median_leaves_out_warm_up_and_pauses() {
        let mut clock = Clock::new(10.0, Vec::new());
        for i in 0..8 {
            if i < 3 {
                sleep(Duration::from_millis(60)); // would be the median of the first five
            }
            sleep(Duration::from_millis(4));
            clock.pause();
            sleep(Duration::from_millis(30));
            clock.resume();
            clock.step_done(Instant::now());
        }
        assert_eq!(clock.steps.len(), 5);
        let speed = clock.steps_per_second().unwrap();
        // 4 ms a step; above 30 ms it would have counted a pause. The machine may be busy, hence not closer.
        assert!(speed < 250.0 && speed > 1000.0 / 30.0, "{speed}");
        assert!(clock.wall_s() > 10.4);
        assert!(Clock::new(0.0, Vec::new()).steps_per_second().is_none());
    }
}
