//! The commands, by the names they have on the command line.

/// What the program is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `forebay demo`
    Demo,
    /// `forebay inspect`
    Inspect,
    /// `forebay prepare` and `forebay plan prepare`
    Prepare,
    /// `forebay verify`
    Verify,
    /// `forebay train` and `forebay plan train`
    Train,
    /// `forebay bench`
    Bench,
    /// `forebay bench model`
    BenchModel,
    /// `forebay forward`
    Forward,
    /// `forebay export`
    Export,
}
