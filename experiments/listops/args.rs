//! Command line of `listops`: every option with its default and the source of the default.
use clap::Parser;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use thruway::data::listops::{Batches, Example, LIMIT, Split, Units, shorter_than};
use thruway::data::{Fetch, ListOps};
use thruway::error::{Error, Result};
use thruway::estimators::{Built, Estimator, Knobs, Tau};
use thruway::nn::tree_lstm::{Leaf, Sizes};
use thruway::optim::Method;
use thruway::report::published;
use thruway::run::RunArgs;

/// Trains a tree-LSTM on ListOps, its merges drawn through a gradient estimator, and reports accuracy in percent.
///
/// Optimizer, learning rate and temperature of each estimator are those of Table 8 of Liu et al. 2023; every option given
/// wins. Where the official training split is not at hand, 90,000 expressions drawn by the original's rule stand in for it.
#[derive(Debug, Parser)]
#[command(name = "listops", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings that reproduce a published table
    #[arg(long, value_enum)]
    pub preset: Option<Preset>,
    #[command(flatten)]
    pub data: DataArgs,
    /// Gradient estimator, any hard drop-in [default: reinmax]
    #[arg(long)]
    pub estimator: Option<String>,
    /// Temperature of the surrogate: a number, linear:FROM:TO:STEPS or exponential:FROM:TO:STEPS [default: Table 8, else 1]
    #[arg(long)]
    pub tau: Option<String>,
    /// Monte Carlo samples of gumbel-rao [default: 100, the published code's; the paper's table has 1000]
    #[arg(long, allow_hyphen_values = true)]
    pub samples: Option<i64>,
    /// Gap of gst, nats [default: 1.0]
    #[arg(long, allow_hyphen_values = true)]
    pub gap: Option<f64>,
    /// Optimizer [default: Table 8, else radam]
    #[arg(long, value_enum)]
    pub optimizer: Option<Method>,
    /// Learning rate [default: Table 8, else 0.0007]
    #[arg(long, allow_hyphen_values = true)]
    pub lr: Option<f64>,
    /// Factor of the learning rate when the validation accuracy has not risen for five validations (published code)
    #[arg(long, default_value_t = 0.5, allow_hyphen_values = true)]
    pub lr_factor: f64,
    /// Largest norm of the gradient of all parameters together (published code)
    #[arg(long, default_value_t = 5.0, allow_hyphen_values = true)]
    pub clip: f64,
    /// Expressions a step (published code)
    #[arg(long, default_value_t = 16, allow_hyphen_values = true)]
    pub batch_size: i64,
    /// Expressions of a batch: of similar length, or any as in the published code [default: bucketed; random in table1]
    #[arg(long, value_enum)]
    pub batches: Option<Batches>,
    /// Epochs to train [default: 20 (published code)]
    #[arg(long, allow_hyphen_values = true)]
    pub epochs: Option<i64>,
    /// Steps to train; with --epochs the first reached ends the run [default: no limit]
    #[arg(long, allow_hyphen_values = true)]
    pub steps: Option<i64>,
    /// Validations in each epoch that --eval-every picks, evenly spaced (published code)
    #[arg(long, default_value_t = 2, allow_hyphen_values = true)]
    pub validations: i64,
    /// Leaves: an LSTM over the words (published), or a linear map
    #[arg(long, value_enum, default_value = "lstm")]
    pub leaf: Leaf,
    /// Length of an embedding (published code)
    #[arg(long, default_value_t = 300, allow_hyphen_values = true)]
    pub embedding_dim: i64,
    /// Width of the tree-LSTM and the classifier (published code)
    #[arg(long, default_value_t = 300, allow_hyphen_values = true)]
    pub hidden_dim: i64,
    /// Dropout on embeddings and in the classifier (published code)
    #[arg(long, default_value_t = 0.5, allow_hyphen_values = true)]
    pub dropout: f64,
    /// Validation expressions whose trees are printed (not with --quiet), written and drawn at the end
    #[arg(long, default_value_t = 5)]
    pub trees: usize,
    #[command(flatten)]
    pub run: RunArgs,
}

/// Which expressions, and how they are read.
#[derive(Debug, Clone, clap::Args)]
pub struct DataArgs {
    /// What the model reads: symbols, or characters as in the published code [default: tokens; chars in table1]
    #[arg(long, value_enum)]
    pub units: Option<Units>,
    /// Expressions of fewer symbols than this are kept, in every split (published code)
    #[arg(long, default_value_t = LIMIT)]
    pub max_length: usize,
    /// Training expressions to draw where the official split is not there, or --generated asks for it (the official number)
    #[arg(long, default_value_t = 90_000)]
    pub train_size: usize,
    /// Seed of the drawn training expressions, apart from --seed
    #[arg(long, default_value_t = 0)]
    pub train_seed: u64,
    /// Draw the training expressions even where there is a file of them
    #[arg(long)]
    pub generated: bool,
}

impl DataArgs {
    /// The splits, and the training, validation and test expressions among them that are short enough.
    pub fn load(&self) -> Result<(ListOps, [Vec<Example>; 3])> {
        if self.train_size < 1 {
            return Err(Error::range("--train-size", "at least 1", self.train_size));
        }
        let data = ListOps::load(Fetch::Allowed, self.generated, self.train_seed, self.train_size)?;
        let kept = [&data.train, &data.valid, &data.test].map(|set| shorter_than(set, self.max_length));
        if kept.iter().any(Vec::is_empty) {
            return Err(Error::range("--max-length", "large enough to leave some of every split", self.max_length));
        }
        Ok((data, kept))
    }
}

/// What else than training there is to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Accuracy of the majority class and of a bag of symbols, and how well simple trees agree with the expressions' own
    Baselines(BaselinesArgs),
}

/// Options of `listops baselines`; without --units the trees are of both.
#[derive(Debug, clap::Args)]
pub struct BaselinesArgs {
    #[command(flatten)]
    pub data: DataArgs,
    /// Directory to write them to as a run, for `thruway report` [default: they are printed only]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Seed of the bag of symbols
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub seed: i64,
    /// auto, cpu, cuda or cuda:N; auto takes a GPU where there is one
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Threads within one operation
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    pub threads: i32,
}

/// Settings of a published table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// Table 1: characters, random batches, 20 epochs
    #[value(name = "table1")]
    Table1,
}

/// Everything that decides the numbers of a run, defaults filled in; the `config` of config.json.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    pub dataset: String,
    pub train_split: Split,
    /// Of the training file, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_sha256: Option<String>,
    pub train_size: usize,
    pub train_seed: u64,
    pub max_length: usize,
    pub units: Units,
    pub estimator: Estimator,
    pub tau: Option<String>,
    pub samples: Option<i64>,
    pub gap: Option<f64>,
    pub leaf: Leaf,
    pub embedding_dim: i64,
    pub hidden_dim: i64,
    pub dropout: f64,
    pub optimizer: Method,
    pub lr: f64,
    pub lr_factor: f64,
    pub clip: f64,
    pub batch_size: i64,
    pub batches: Batches,
    pub epochs: Option<i64>,
    pub steps: Option<i64>,
    pub validations: i64,
    /// --eval-every, where it is not 1: the learning rate and the best parameters depend on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validate_every: Option<i64>,
}

impl Config {
    /// Fills in the preset and the defaults, and refuses what makes no sense.
    pub fn new(args: &Args, data: &ListOps) -> Result<(Config, Knobs)> {
        let estimator = estimator(args.estimator.as_deref().unwrap_or("reinmax"))?;
        let hyper = published::hyper("listops", &estimator.name());
        let takes = |knob| estimator.claims().knobs.contains(&knob);
        let given = args.tau.clone().or_else(|| hyper.map(|h| h.tau.to_string()));
        let tau = if takes("tau") { Some(given.unwrap_or("1".into())) } else { args.tau.clone() };
        let samples = if takes("samples") { Some(args.samples.unwrap_or(100)) } else { args.samples };
        let gap = if takes("gap") { Some(args.gap.unwrap_or(1.0)) } else { args.gap };
        let knobs = Knobs { tau: tau.as_deref().map(str::parse::<Tau>).transpose()?, samples, gap, ..Knobs::default() };
        estimator.build(&knobs)?.drop_in()?;
        if !estimator.claims().hard_forward {
            let why =
                format!("{} relaxes its samples, and a merge needs a choice; use a hard estimator", estimator.name());
            return Err(Error::Usage(why));
        }
        let positive = |what: &str, v: i64| if v < 1 { Err(Error::range(what, "at least 1", v)) } else { Ok(v) };
        let above_0 = |what: &str, v: f64| match v.is_finite() && v > 0.0 {
            true => Ok(v),
            false => Err(Error::range(what, "positive and finite", v)),
        };
        let steps = args.steps.map(|n| positive("--steps", n)).transpose()?;
        let epochs = args.epochs.map(|n| positive("--epochs", n)).transpose()?;
        let lr_factor = above_0("--lr-factor", args.lr_factor)?;
        if lr_factor > 1.0 {
            return Err(Error::range("--lr-factor", "at most 1", lr_factor));
        }
        let table1 = args.preset == Some(Preset::Table1);
        let config = Config {
            dataset: data.name().into(),
            train_split: data.train_split,
            train_sha256: data.train_file.as_ref().map(|file| file.sha256.clone()),
            train_size: data.train.len(),
            train_seed: args.data.train_seed,
            max_length: args.data.max_length,
            units: args.data.units.unwrap_or(if table1 { Units::Chars } else { Units::Tokens }),
            estimator,
            tau,
            samples,
            gap,
            leaf: args.leaf,
            embedding_dim: args.embedding_dim,
            hidden_dim: args.hidden_dim,
            dropout: args.dropout,
            optimizer: match (args.optimizer, hyper) {
                (Some(o), _) => o,
                (None, Some(h)) if h.optimizer.eq_ignore_ascii_case("adam") => Method::Adam,
                _ => Method::RAdam,
            },
            lr: above_0("--lr", args.lr.or(hyper.map(|h| h.lr)).unwrap_or(7e-4))?,
            lr_factor,
            clip: above_0("--clip", args.clip)?,
            batch_size: positive("--batch-size", args.batch_size)?,
            batches: args.batches.unwrap_or(if table1 { Batches::Random } else { Batches::Bucketed }),
            epochs: epochs.or(steps.is_none().then_some(20)),
            steps,
            validations: positive("--validations", args.validations)?,
            validate_every: Some(args.run.eval_every).filter(|&n| n != 1),
        };
        Ok((config, knobs))
    }

    /// Sizes of the model.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            embedding: self.embedding_dim,
            hidden: self.hidden_dim,
            classifier: self.hidden_dim,
            leaf: self.leaf,
            dropout: self.dropout,
            ..Sizes::published(self.units.vocabulary())
        }
    }
}

/// By name; the list for an unknown one holds only those that can pick a merge.
fn estimator(name: &str) -> Result<Estimator> {
    let serves = |e: &&Estimator| e.claims().hard_forward && matches!(e.build(&Knobs::default()), Ok(Built::DropIn(_)));
    Estimator::by_name(name).map_err(|_| Error::Unknown {
        what: "estimator",
        got: name.into(),
        known: Estimator::ALL.iter().filter(serves).map(|e| e.name()).collect::<Vec<_>>().join(", "),
    })
}
