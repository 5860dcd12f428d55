//! The parameters of a network by name: what the optimiser moves, what is frozen, what only remembers.

use std::cell::RefCell;
use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, Var, bail};
use forebay_datasets::seed::{Seed, Stream};

use crate::ops::BatchStatistics;

/// What a tensor of a network is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Weights of a convolution or a linear layer: trained, with weight decay.
    Weight,
    /// A bias, or scale and shift of a norm: trained, without weight decay.
    Shift,
    /// Running statistics: never trained, updated by the forward pass of a training step.
    Buffer,
}

/// One tensor of a network. A clone is another handle on the same values.
#[derive(Clone, Debug)]
pub struct Entry {
    variable: Var,
    kind: Kind,
    part: usize,
    frozen: bool,
}

impl Entry {
    /// What the tensor is for.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The part of the network that it belongs to, counted from the images.
    pub fn part(&self) -> usize {
        self.part
    }

    /// True when the optimiser moves it.
    pub fn is_trainable(&self) -> bool {
        self.kind != Kind::Buffer && !self.frozen
    }

    /// The variable itself, for the optimiser.
    pub fn variable(&self) -> &Var {
        &self.variable
    }

    /// Its values, outside of any graph.
    pub fn values(&self) -> Tensor {
        self.variable.as_detached_tensor()
    }
}

/// All tensors of a network in the order of their names, which is torchvision's for the families it has. A clone shares
/// their values; [`ParamStore::duplicate`] does not.
#[derive(Clone, Debug)]
pub struct ParamStore {
    entries: BTreeMap<String, Entry>,
    device: Device,
}

impl ParamStore {
    /// An empty store whose tensors will live on `device`.
    pub fn new(device: Device) -> ParamStore {
        ParamStore { entries: BTreeMap::new(), device }
    }

    /// The device of every tensor.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Names and tensors in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// Freezes the tensors of the parts before `part` and trains the others. A frozen tensor is a plain one to the
    /// forward pass: nothing before it costs a graph, and the statistics of a frozen norm do not move.
    pub fn freeze_before(&mut self, part: usize) {
        for entry in self.entries.values_mut() {
            entry.frozen = entry.part < part;
        }
    }

    /// A copy with values of its own.
    ///
    /// # Errors
    /// When the device cannot hold it.
    pub fn duplicate(&self) -> Result<ParamStore> {
        let mut entries = BTreeMap::new();
        for (name, entry) in &self.entries {
            let variable = Var::from_tensor(&entry.values().copy()?)?;
            entries.insert(name.clone(), Entry { variable, ..*entry });
        }
        Ok(ParamStore { entries, device: self.device.clone() })
    }

    /// Moves every tensor that is not frozen in `other` towards its values there: `decay · here + (1 - decay) · there`.
    ///
    /// # Errors
    /// When `other` is of another network.
    pub fn move_towards(&self, other: &ParamStore, decay: f64) -> Result<()> {
        for (name, entry) in &self.entries {
            let Some(there) = other.get(name) else { bail!("the network has no tensor `{name}`") };
            if there.frozen {
                // The mean of equal numbers is that number but for its rounding.
                continue;
            }
            entry.variable.set(&((entry.values() * decay)? + (there.values() * (1.0 - decay))?)?)?;
        }
        Ok(())
    }

    /// Draws the initial values of those tensors that `is_drawn` names, as they would have been from the beginning.
    ///
    /// # Errors
    /// When the device cannot hold them.
    pub(crate) fn draw(&self, undrawn: Undrawn, seed: Seed, is_drawn: impl Fn(&str) -> bool) -> Result<()> {
        for (name, initial) in undrawn.into_iter().filter(|(name, _)| is_drawn(name)) {
            let Some(entry) = self.entries.get(&name) else { bail!("the network has no tensor `{name}`") };
            let shape = entry.variable.dims();
            let values = initial.values(seed, &name, shape.iter().product());
            entry.variable.set(&Tensor::from_vec(values, shape, &self.device)?)?;
        }
        Ok(())
    }

    /// Overwrites the values of `name`, keeping what it is for.
    ///
    /// # Errors
    /// When there is no such tensor, or it has another shape.
    pub fn set(&self, name: &str, values: &Tensor) -> Result<()> {
        let Some(entry) = self.entries.get(name) else { bail!("the network has no tensor `{name}`") };
        entry.variable.set(&values.to_device(&self.device)?.to_dtype(DType::F32)?.contiguous()?)
    }
}

/// What becomes of the tensors of a network that is built.
#[derive(Debug)]
enum Registry<'a> {
    /// They are there.
    Store(&'a mut ParamStore),
    /// Their names and shapes are: what is asked of a network before it runs is no reason to hold it.
    Outline(&'a mut BTreeMap<String, Vec<usize>>),
}

/// How the values of a tensor begin.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Initial {
    /// The same number everywhere.
    Constant(f32),
    /// Normal numbers of mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform numbers in `[-bound, bound)`.
    Uniform(f64),
}

impl Initial {
    /// So many values, as a function of `seed` and of the name of the tensor.
    fn values(self, seed: Seed, name: &str, count: usize) -> Vec<f32> {
        let mut stream = seed.stream(&format!("weights/{name}"));
        match self {
            Initial::Constant(value) => vec![value; count],
            Initial::Normal(std) => (0..count).map(|_| (std * stream.normal()) as f32).collect(),
            Initial::Uniform(bound) => (0..count).map(|_| stream.range(-bound, bound) as f32).collect(),
        }
    }
}

/// Registers the tensors of a network while it is built, with their initial values.
#[derive(Debug)]
pub struct Builder<'a> {
    registry: Registry<'a>,
    seed: Option<Seed>,
    part: usize,
    undrawn: Undrawn,
}

/// Tensors whose random initial values were not drawn, and how they begin.
pub(crate) type Undrawn = Vec<(String, Initial)>;

impl<'a> Builder<'a> {
    /// Initial values are a function of `seed` and of the name of a tensor, so that adding a layer changes no
    /// other layer's.
    pub fn new(store: &'a mut ParamStore, seed: Seed) -> Builder<'a> {
        Builder { registry: Registry::Store(store), seed: Some(seed), part: 0, undrawn: Vec::new() }
    }

    /// Random initial values are zero: for a network that is overwritten whole, or where they are drawn later.
    pub fn blank(store: &'a mut ParamStore) -> Builder<'a> {
        Builder { registry: Registry::Store(store), seed: None, part: 0, undrawn: Vec::new() }
    }

    /// Only name and shape of each tensor are kept.
    pub(crate) fn outline(shapes: &'a mut BTreeMap<String, Vec<usize>>) -> Builder<'a> {
        Builder { registry: Registry::Outline(shapes), seed: None, part: 0, undrawn: Vec::new() }
    }

    /// What [`ParamStore::draw`] draws.
    pub(crate) fn undrawn(self) -> Undrawn {
        self.undrawn
    }

    /// What is registered from here on belongs to the part of this number.
    pub(crate) fn begin_part(&mut self, part: usize) {
        self.part = part;
    }

    /// Normal numbers of mean 0 and the given standard deviation.
    pub(crate) fn normal(&mut self, name: &str, shape: &[usize], std: f64) -> Result<()> {
        self.insert(name, shape, Kind::Weight, Initial::Normal(std))
    }

    /// Uniform numbers in `[-bound, bound)`.
    pub(crate) fn uniform(&mut self, name: &str, shape: &[usize], kind: Kind, bound: f64) -> Result<()> {
        self.insert(name, shape, kind, Initial::Uniform(bound))
    }

    /// The same number everywhere.
    pub(crate) fn constant(&mut self, name: &str, shape: &[usize], kind: Kind, value: f32) -> Result<()> {
        self.insert(name, shape, kind, Initial::Constant(value))
    }

    fn insert(&mut self, name: &str, shape: &[usize], kind: Kind, initial: Initial) -> Result<()> {
        let is_new = match &mut self.registry {
            Registry::Outline(shapes) => shapes.insert(name.to_owned(), shape.to_vec()).is_none(),
            Registry::Store(store) => {
                let count = shape.iter().product();
                let values = match (initial, self.seed) {
                    (Initial::Constant(value), _) => vec![value; count],
                    (initial, Some(seed)) => initial.values(seed, name, count),
                    (initial, None) => {
                        self.undrawn.push((name.to_owned(), initial));
                        vec![0.0; count]
                    }
                };
                let variable = Var::from_vec(values, shape, &store.device)?;
                let entry = Entry { variable, kind, part: self.part, frozen: false };
                store.entries.insert(name.to_owned(), entry).is_none()
            }
        };
        assert!(is_new, "two tensors are called {name}");
        Ok(())
    }
}

/// What a forward pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A training step: batch statistics in norms that are not frozen, a graph for what is trained.
    Train,
    /// Evaluation: running statistics, no graph.
    Evaluate,
}

/// The statistics of a batch that a norm saw, on their way into its running statistics.
#[derive(Clone, Debug)]
pub struct NormUpdate {
    norm: String,
    momentum: f64,
    statistics: BatchStatistics,
}

/// One forward pass: hands tensors to the layers, and takes from them the statistics of the batch.
#[derive(Debug)]
pub struct Pass<'a> {
    store: &'a ParamStore,
    mode: Mode,
    dropout: Option<(Seed, u64)>,
    fixed_norms: bool,
    updates: RefCell<Vec<NormUpdate>>,
}

impl<'a> Pass<'a> {
    /// A pass over the tensors of `store`, without dropout.
    pub fn new(store: &'a ParamStore, mode: Mode) -> Pass<'a> {
        Pass { store, mode, dropout: None, fixed_norms: false, updates: RefCell::default() }
    }

    /// The same with dropout, whose masks are a function of the seed, the step and the name of the layer.
    pub fn with_dropout(mut self, seed: Seed, step: u64) -> Pass<'a> {
        // In place: of a pass made anew by `..self`, rustc 1.95 made code that wrote into the updates of the one before.
        self.dropout = Some((seed, step));
        self
    }

    /// The same with norms that use their running statistics and leave them alone, also where their weights are
    /// trained: what evaluation computes, with its gradients.
    pub fn with_fixed_norms(mut self) -> Pass<'a> {
        self.fixed_norms = true;
        self
    }

    /// True when the norm called `name` uses the moments of the batch.
    pub fn uses_batch_moments(&self, name: &str) -> bool {
        !self.fixed_norms && self.trains(&format!("{name}.weight"))
    }

    /// The draws of the dropout layer called `name`; `None` in a pass without dropout.
    pub fn dropout(&self, name: &str) -> Option<Stream> {
        let (seed, step) = self.dropout?;
        (self.mode == Mode::Train).then(|| seed.stream(&format!("dropout/{step}/{name}")))
    }

    /// The tensor called `name`: with a graph when this pass trains it, plain otherwise.
    ///
    /// # Panics
    /// When the network was built without it: names come from the layers that registered them.
    pub fn tensor(&self, name: &str) -> Tensor {
        let entry = self.store.get(name).unwrap_or_else(|| panic!("no tensor is called {name}"));
        if self.trains(name) { entry.variable.as_tensor().clone() } else { entry.values() }
    }

    /// True when this pass trains the tensor called `name`.
    pub fn trains(&self, name: &str) -> bool {
        self.mode == Mode::Train && self.store.get(name).is_some_and(Entry::is_trainable)
    }

    /// Keeps the statistics of the norm called `name` for [`Pass::finish`]; `momentum` is the share that a batch has
    /// in its running statistics.
    pub fn record(&self, name: &str, momentum: f64, statistics: BatchStatistics) {
        self.updates.borrow_mut().push(NormUpdate { norm: name.to_owned(), momentum, statistics });
    }

    /// The statistics that norms recorded. They are applied by [`update_running_statistics`] once the step is
    /// known to be sound, so that a step that fails leaves the network as it was.
    pub fn finish(self) -> Vec<NormUpdate> {
        self.updates.into_inner()
    }
}

/// Moves running means and variances towards those of a batch: `running += momentum · (batch - running)`.
///
/// # Errors
/// When a norm is not in the store.
pub fn update_running_statistics(store: &ParamStore, updates: &[NormUpdate]) -> Result<()> {
    for NormUpdate { norm, momentum, statistics } in updates {
        let pairs = [("running_mean", &statistics.mean), ("running_var", &statistics.unbiased_variance)];
        for (name, batch) in pairs {
            let name = format!("{norm}.{name}");
            let Some(entry) = store.get(&name) else { bail!("the network has no tensor `{name}`") };
            entry.variable.set(&((entry.values() * (1.0 - momentum))? + (batch * *momentum)?)?)?;
        }
    }
    Ok(())
}
