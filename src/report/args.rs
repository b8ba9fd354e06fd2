//! The flags that the `tables` subcommands share.
use std::path::PathBuf;

/// Runs whose tables are wanted, and the page that takes them.
#[derive(Debug, clap::Args)]
pub struct PageArgs {
    /// Run directories, or folders of them
    #[arg(required = true)]
    pub runs: Vec<PathBuf>,
    /// Fill the tables between `<!-- table:NAME -->` and `<!-- /table -->` in this file
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

/// The same with figures.
#[derive(Debug, clap::Args)]
pub struct TablesArgs {
    /// Runs and page.
    #[command(flatten)]
    pub page: PageArgs,
    /// Folder for the figures, SVG; curves need the runs' metrics.jsonl [default: none]
    #[arg(long, value_name = "DIR")]
    pub figures: Option<PathBuf>,
}
