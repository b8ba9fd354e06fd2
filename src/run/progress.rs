//! What a waiting person sees on stderr: a bar on a terminal, a line now and then elsewhere, nothing with `--quiet`.
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between two updates of the bar's message.
const BAR: Duration = Duration::from_millis(200);
/// Between two lines where there is no terminal; the first comes earlier.
const LINE: Duration = Duration::from_secs(20);
const FIRST_LINE: Duration = Duration::from_secs(3);

enum Show {
    Nothing,
    Lines,
    Bar(ProgressBar),
}

pub(super) struct Progress {
    show: Show,
    total: Option<i64>,
    /// Step and time at which this process began.
    from: (i64, Instant),
    next: Instant,
}

impl Progress {
    pub(super) fn new(quiet: bool, from: i64) -> Self {
        let now = Instant::now();
        let show = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Show::Nothing,
            (_, false) => Show::Lines,
            _ => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
                bar.set_style(style("{spinner} step {pos} | {msg} | {elapsed}"));
                Show::Bar(bar.with_position(from as u64))
            }
        };
        let next = now + if matches!(show, Show::Lines) { FIRST_LINE } else { Duration::ZERO };
        Progress { show, total: None, from: (from, now), next }
    }

    /// From now on the bar knows where it ends.
    pub(super) fn expect(&mut self, total: i64) {
        self.total = Some(total);
        if let Show::Bar(bar) = &self.show {
            bar.set_length(total.max(0) as u64);
            bar.set_style(style("{wide_bar} {pos}/{len} | {msg} | {elapsed}, {eta} left"));
            bar.reset_eta();
        }
    }

    pub(super) fn step(&mut self, step: i64, loss: f64, now: Instant) {
        if now < self.next {
            return;
        }
        let rate = (step - self.from.0) as f64 / (now - self.from.1).as_secs_f64().max(1e-9);
        match &self.show {
            Show::Nothing => self.next = now + Duration::from_secs(3600),
            Show::Bar(bar) => {
                self.next = now + BAR;
                bar.set_position(step as u64);
                bar.set_message(format!("loss {loss:.4} | {rate:.1} steps/s"));
            }
            Show::Lines => {
                self.next = now + LINE;
                match self.total {
                    Some(total) => {
                        let left = Duration::from_secs_f64(((total - step) as f64 / rate).clamp(0.0, 1e9));
                        let left = HumanDuration(left);
                        eprintln!("step {step}/{total} | loss {loss:.4} | {rate:.1} steps/s | {left} left")
                    }
                    None => eprintln!("step {step} | loss {loss:.4} | {rate:.1} steps/s"),
                }
            }
        }
    }

    /// A line that stays.
    pub(super) fn say(&self, text: &str) {
        match &self.show {
            Show::Nothing => {}
            Show::Lines => eprintln!("{text}"),
            Show::Bar(bar) => bar.suspend(|| eprintln!("{text}")),
        }
    }

    pub(super) fn done(&self, text: &str) {
        if let Show::Bar(bar) = &self.show {
            bar.finish_and_clear();
        }
        if !matches!(self.show, Show::Nothing) {
            eprintln!("{text}");
        }
    }
}

/// The template is ours and right; a wrong one would show as the default style.
pub(super) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
