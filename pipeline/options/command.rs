//! The commands: a row each, with all that is known of one before it runs.

/// What the program is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `forebay demo`
    Demo,
    /// `forebay inspect`
    Inspect,
    /// `forebay prepare` and `forebay plan prepare`
    Prepare,
    /// `forebay convert`
    Convert,
    /// `forebay verify`
    Verify,
    /// `forebay trace`
    Trace,
    /// `forebay train` and `forebay plan train`
    Train,
    /// `forebay bench`
    Bench,
    /// `forebay bench model`
    BenchModel,
    /// `forebay models`
    Models,
    /// `forebay forward`
    Forward,
    /// `forebay export`
    Export,
    /// `forebay predict`
    Predict,
    /// `forebay eval`
    Eval,
    /// `forebay compare`
    Compare,
    /// `forebay ensemble`
    Ensemble,
    /// `forebay tune`
    Tune,
    /// `forebay advise`
    Advise,
}

/// What is known of a command.
#[derive(Debug)]
pub struct CommandRow {
    /// Which it is.
    pub command: Command,
    /// Its word on the command line.
    pub name: &'static str,
    /// The command whose subcommand it is.
    pub below: Option<&'static str>,
    /// What it does, in one line.
    pub about: &'static str,
    /// How it is called, a line each.
    pub example: &'static str,
    /// Whether `forebay plan` shows its plan.
    pub shows_plan: bool,
    /// Whether its plan says which options are without effect, together with all else that is wrong; else this is
    /// said before it runs.
    pub checks_options: bool,
    /// Whether it runs networks, which take and free the same large blocks again and again.
    pub runs_networks: bool,
}

/// Every command, in the order of the help.
pub const COMMANDS: &[CommandRow] = &[
    CommandRow {
        command: Command::Demo,
        name: "demo",
        below: None,
        about: "Draw a small dataset and run the whole job on it: inspect, prepare, train, test",
        example: "forebay demo\n  forebay demo --out my-demo --epochs 3",
        shows_plan: false,
        checks_options: true,
        runs_networks: true,
    },
    CommandRow {
        command: Command::Inspect,
        name: "inspect",
        below: None,
        about: "Show what is in a source and what is wrong with it: classes, sizes, broken files, duplicates, leaks, shortcuts",
        example: "forebay inspect photos/\n  forebay inspect photos/ --html photos.html --fail-on leaks,rejects",
        shows_plan: false,
        checks_options: false,
        runs_networks: false,
    },
    CommandRow {
        command: Command::Prepare,
        name: "prepare",
        below: None,
        about: "Turn images of any layout into shards; run it again and it resumes",
        example: "forebay prepare photos/ shards/ --size 224 --fit crop\n  forebay prepare photos/ s3://bucket/shards --encode raw --balance over --augment light",
        shows_plan: true,
        checks_options: true,
        runs_networks: false,
    },
    CommandRow {
        command: Command::Convert,
        name: "convert",
        below: None,
        about: "Write a dataset in another form, its image files as they are: shards of Forebay, WebDataset or MDS",
        example: "forebay convert photos/ tars/ --format webdataset\n  forebay convert shards/ mds/ --format mds",
        shows_plan: false,
        checks_options: false,
        runs_networks: false,
    },
    CommandRow {
        command: Command::Verify,
        name: "verify",
        below: None,
        about: "Read every shard again and compare it with the manifest's checksums",
        example: "forebay verify shards/",
        shows_plan: false,
        checks_options: false,
        runs_networks: false,
    },
    CommandRow {
        command: Command::Trace,
        name: "trace",
        below: None,
        about: "Say where a sample of shards comes from, in which row it lies, and which draws made it",
        example: "forebay trace shards/ cat/0001.jpg\n  forebay trace shards/ cat/0001.jpg --run runs/first --epoch 3",
        shows_plan: false,
        checks_options: false,
        runs_networks: false,
    },
    CommandRow {
        command: Command::Train,
        name: "train",
        below: None,
        about: "Fine-tune a model on shards or on images of any layout",
        example: "forebay train shards/ --out runs/first\n  forebay train photos/ --out runs/r18 --size 224 --arch resnet18 --weights resnet18.safetensors --freeze backbone",
        shows_plan: true,
        checks_options: true,
        runs_networks: true,
    },
    CommandRow {
        command: Command::Tune,
        name: "tune",
        below: None,
        about: "Search for better settings: many trainings on one source, of which the best is a run file",
        example: "forebay tune photos/ --out tune --arch resnet18 --weights resnet18.safetensors --freeze backbone --budget 10m\n  forebay tune shards/ --out tune --trials 40 --prune hyperband --space train.learning_rate=1e-4..1e-1,log --space train.optimizer=adamw,sgd",
        shows_plan: false,
        checks_options: true,
        runs_networks: true,
    },
    CommandRow {
        command: Command::Advise,
        name: "advise",
        below: None,
        about: "Compare losses and balances for uneven classes on a frozen network's features, and recommend one",
        example: "forebay advise photos/ --arch resnet18 --weights resnet18.safetensors\n  forebay advise shards/ --arch resnet18 --weights resnet18.safetensors --epochs 30 --seeds 5",
        shows_plan: false,
        checks_options: true,
        runs_networks: true,
    },
    CommandRow {
        command: Command::Predict,
        name: "predict",
        below: None,
        about: "Say what a model sees in images: the likeliest classes of each, with their probabilities",
        example: "forebay predict runs/first photo.jpg --explain heatmaps\n  forebay predict runs/first new-photos/ --output predictions.csv\n  forebay predict resnet18-f37072fd.pth photo.jpg --arch resnet18",
        shows_plan: false,
        checks_options: false,
        runs_networks: true,
    },
    CommandRow {
        command: Command::Eval,
        name: "eval",
        below: None,
        about: "Say how good a model is on images of known class, and how sure that is",
        example: "forebay eval runs/first\n  forebay eval runs/first new-photos/ --out eval",
        shows_plan: false,
        checks_options: false,
        runs_networks: true,
    },
    CommandRow {
        command: Command::Compare,
        name: "compare",
        below: None,
        about: "Put runs side by side on the same samples, and say which difference could be chance",
        example: "forebay compare runs/a runs/b\n  forebay compare runs/a runs/b runs/c --split validation",
        shows_plan: false,
        checks_options: false,
        runs_networks: false,
    },
    CommandRow {
        command: Command::Ensemble,
        name: "ensemble",
        below: None,
        about: "Make one model of several runs: a vote, or the mean of their weights",
        example: "forebay ensemble runs/a runs/b runs/c --out runs/abc\n  forebay ensemble runs/a runs/b --soup --out runs/soup",
        shows_plan: false,
        checks_options: false,
        runs_networks: true,
    },
    CommandRow {
        command: Command::Bench,
        name: "bench",
        below: None,
        about: "Measure the input pipeline without training, and say what bounds it",
        example: "forebay bench shards/ --batch-size 64 --json > before.json\n  forebay bench shards/ --batch-size 64 --compare before.json\n  forebay bench photos/ --size 224 --sweep threads --replay resnet18\n  forebay bench model resnet50 --batch 8 --mode step",
        shows_plan: false,
        checks_options: true,
        runs_networks: false,
    },
    CommandRow {
        command: Command::BenchModel,
        name: "model",
        below: Some("bench"),
        about: "Measure a network on random weights: images per second, processor time, memory",
        example: "forebay bench model mobilenet_v2 --batch 8 --size 224 --mode step --json",
        shows_plan: false,
        checks_options: false,
        runs_networks: true,
    },
    CommandRow {
        command: Command::Models,
        name: "models",
        below: None,
        about: "List the networks: parameters, input size, parts, known weights and their licences",
        example: "forebay models\n  forebay models resnet50",
        shows_plan: false,
        checks_options: false,
        runs_networks: false,
    },
    CommandRow {
        command: Command::Forward,
        name: "forward",
        below: None,
        about: "Run a network over given tensors, to compare it with another program",
        example: "forebay forward resnet50 --weights W.safetensors --input X.safetensors --output Y.safetensors --gradients",
        shows_plan: false,
        checks_options: false,
        runs_networks: true,
    },
    CommandRow {
        command: Command::Export,
        name: "export",
        below: None,
        about: "Write a trained network as an ONNX file, for onnxruntime and others",
        example: "forebay export runs/first --output first.onnx\n  forebay export resnet50.pth --arch resnet50 --size 224 --output resnet50.onnx",
        shows_plan: false,
        checks_options: false,
        runs_networks: false,
    },
];

impl Command {
    /// What is known of it.
    pub fn row(self) -> &'static CommandRow {
        COMMANDS.iter().find(|row| row.command == self).expect("every command has a row")
    }
}
