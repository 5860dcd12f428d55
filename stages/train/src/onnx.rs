//! A network as a graph of ONNX's operators, and the file that holds it.
//!
//! The numbers of fields and types are those of `onnx.proto`. IR version 8 and operator set 17 belong to ONNX 1.12 and
//! are read by onnxruntime from 1.13 on.

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::ops::{Activation, Pooling};
use crate::protobuf::Message;

const IR_VERSION: u64 = 8;
const OPERATOR_SET: u64 = 17;
/// `TensorProto.FLOAT` and `TensorProto.BOOL`.
const FLOAT: u64 = 1;
const BOOL: u64 = 9;
/// The name of the input `[batch, 3, side, side]`.
const IMAGES: &str = "images";
/// The name of the output `[batch, classes]`.
const LOGITS: &str = "logits";

/// A tensor that flows through a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    name: String,
    /// Without the batch.
    shape: Vec<usize>,
}

impl Value {
    /// The name, unique in its graph.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The shape of one image's part of it.
    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Channels, height and width.
    pub(crate) fn plane(&self) -> Result<(usize, usize, usize)> {
        match self.shape[..] {
            [channels, height, width] => Ok((channels, height, width)),
            _ => bail!("{} has the shape {:?}: expected [channels, height, width]", self.name, self.shape),
        }
    }
}

/// What an operator is told besides its inputs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Attribute {
    Integer(usize),
    Integers(Vec<usize>),
    Float(f32),
}

#[derive(Clone, Debug)]
struct OnnxNode {
    operator: &'static str,
    inputs: Vec<String>,
    output: Value,
    attributes: Vec<(&'static str, Attribute)>,
    is_boolean: bool,
}

/// Nodes in the order in which they run, and the constants that they take. It begins with the value `images`.
#[derive(Clone, Debug)]
pub struct Graph {
    images: Value,
    nodes: Vec<OnnxNode>,
    constants: Vec<(String, Tensor)>,
    /// What the names of constants begin with: those of the network at hand.
    prefix: String,
}

/// What a file says besides its graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// The name of the network.
    pub name: String,
    /// A sentence or more for people.
    pub text: String,
    /// Keys and values for programs, in the order in which they are written.
    pub properties: Vec<(String, String)>,
}

impl Graph {
    /// A graph without nodes for square images of `side` pixels.
    pub fn new(side: usize) -> Graph {
        let images = Value { name: IMAGES.to_owned(), shape: vec![3, side, side] };
        Graph { images, nodes: Vec::new(), constants: Vec::new(), prefix: String::new() }
    }

    /// Normalised images, `[batch, 3, side, side]`.
    pub fn images(&self) -> Value {
        self.images.clone()
    }

    /// Adds a node whose output has the given shape, without the batch.
    pub(crate) fn node(
        &mut self,
        operator: &'static str,
        inputs: &[&str],
        attributes: Vec<(&'static str, Attribute)>,
        shape: Vec<usize>,
    ) -> Value {
        let output = Value { name: format!("{operator}_{}", self.nodes.len()), shape };
        let inputs = inputs.iter().map(|&input| input.to_owned()).collect();
        let is_boolean = false;
        self.nodes.push(OnnxNode { operator, inputs, output: output.clone(), attributes, is_boolean });
        output
    }

    /// Adds a constant of f32 and returns its name.
    pub(crate) fn constant(&mut self, name: &str, values: Tensor) -> String {
        let name = format!("{}{name}", self.prefix);
        self.add_constant(name, values)
    }

    fn add_constant(&mut self, name: String, values: Tensor) -> String {
        debug_assert!(
            self.constants.iter().all(|(known, _)| *known != name),
            "two constants are called {name}"
        );
        self.constants.push((name.clone(), values));
        name
    }

    /// A number, which is a constant once however often it is needed.
    fn number(&mut self, value: f32) -> Result<String> {
        let name = format!("number.{value}");
        match self.constants.iter().any(|(known, _)| *known == name) {
            true => Ok(name),
            // It is the same in every network.
            false => Ok(self.add_constant(name, Tensor::new(value, &Device::Cpu)?)),
        }
    }

    /// The product of each value of `x` with that of `scale`, whose sides of 1 are repeated.
    pub(crate) fn product(&mut self, x: &Value, scale: &str) -> Value {
        self.node("Mul", &[x.name(), scale], vec![], x.shape.clone())
    }

    /// The activation of every value.
    pub(crate) fn activate(&mut self, x: Value, activation: Activation) -> Result<Value> {
        let shape = x.shape.clone();
        Ok(match activation {
            Activation::Identity => x,
            Activation::Relu => self.node("Relu", &[x.name()], vec![], shape),
            Activation::Relu6 => {
                let (low, high) = (self.number(0.0)?, self.number(6.0)?);
                self.node("Clip", &[x.name(), &low, &high], vec![], shape)
            }
            Activation::HardSwish => self.node("HardSwish", &[x.name()], vec![], shape),
            Activation::HardSigmoid => {
                let line = vec![("alpha", Attribute::Float(1.0 / 6.0)), ("beta", Attribute::Float(0.5))];
                self.node("HardSigmoid", &[x.name()], line, shape)
            }
            Activation::Sigmoid => self.node("Sigmoid", &[x.name()], vec![], shape),
            Activation::Tanh => self.node("Tanh", &[x.name()], vec![], shape),
            Activation::Silu => {
                let gate = self.node("Sigmoid", &[x.name()], vec![], shape);
                self.product(&x, gate.name())
            }
            Activation::Gelu => {
                // An operator of its own from set 20 on; runtimes know these five nodes as one.
                let (root, one, half) =
                    (self.number(std::f32::consts::SQRT_2)?, self.number(1.0)?, self.number(0.5)?);
                let scaled = self.node("Div", &[x.name(), &root], vec![], shape.clone());
                let erf = self.node("Erf", &[scaled.name()], vec![], shape.clone());
                let twice = self.node("Add", &[erf.name(), &one], vec![], shape);
                let y = self.product(&x, twice.name());
                self.product(&y, &half)
            }
        })
    }

    /// The largest value of each window.
    pub(crate) fn max_pool(&mut self, x: &Value, pooling: Pooling) -> Result<Value> {
        self.pool("MaxPool", x, pooling, vec![])
    }

    /// The mean of each window; padding counts as zeros where `count_padding` is true.
    pub(crate) fn average_pool(&mut self, x: &Value, pooling: Pooling, count_padding: bool) -> Result<Value> {
        if pooling.ceil && count_padding {
            bail!("ONNX has no mean over padding that ends before a window does");
        }
        let counts = vec![("count_include_pad", Attribute::Integer(count_padding.into()))];
        self.pool("AveragePool", x, pooling, counts)
    }

    fn pool(
        &mut self,
        operator: &'static str,
        x: &Value,
        pooling: Pooling,
        mut attributes: Vec<(&'static str, Attribute)>,
    ) -> Result<Value> {
        let (channels, height, width) = x.plane()?;
        pooling.check(height, width)?;
        let Pooling { window, stride, padding, .. } = pooling;
        // The size is known, so that ceil mode is padding behind the image: runtimes disagree about its last window.
        let behind = |size: usize| {
            let needed = (pooling.output(size) - 1) * stride + window;
            needed.saturating_sub(size + padding).max(padding)
        };
        attributes.extend([
            ("kernel_shape", Attribute::Integers(vec![window; 2])),
            ("strides", Attribute::Integers(vec![stride; 2])),
            ("pads", Attribute::Integers(vec![padding, padding, behind(height), behind(width)])),
        ]);
        let shape = vec![channels, pooling.output(height), pooling.output(width)];
        Ok(self.node(operator, &[x.name()], attributes, shape))
    }

    /// The mean over the plane, `[batch, channels, 1, 1]`.
    pub(crate) fn global_average_pool(&mut self, x: &Value) -> Result<Value> {
        let (channels, ..) = x.plane()?;
        Ok(self.node("GlobalAveragePool", &[x.name()], vec![], vec![channels, 1, 1]))
    }

    /// The means of a grid of `rows` x `columns` cells, as products with constant matrices from the left and the right:
    /// exact for images of any size, where a pool fits only those that divide.
    pub(crate) fn grid_of_means(&mut self, x: &Value, rows: usize, columns: usize) -> Result<Value> {
        let (channels, height, width) = x.plane()?;
        if (height, width) == (rows, columns) {
            return Ok(x.clone());
        }
        let share = |cell: usize, cells: usize, pixel: usize, size: usize| {
            let inside = cell * size / cells..((cell + 1) * size).div_ceil(cells);
            if inside.contains(&pixel) { (1.0 / inside.len() as f64) as f32 } else { 0.0 }
        };
        let across = (0..width)
            .flat_map(|pixel| (0..columns).map(move |cell| share(cell, columns, pixel, width)))
            .collect::<Vec<f32>>();
        let down = (0..rows)
            .flat_map(|cell| (0..height).map(move |pixel| share(cell, rows, pixel, height)))
            .collect::<Vec<f32>>();
        let node = self.nodes.len();
        let across = Tensor::from_vec(across, (width, columns), &Device::Cpu)?;
        let across = self.constant(&format!("columns_{node}"), across);
        let down = Tensor::from_vec(down, (rows, height), &Device::Cpu)?;
        let down = self.constant(&format!("rows_{node}"), down);
        let y = self.node("MatMul", &[x.name(), &across], vec![], vec![channels, height, columns]);
        Ok(self.node("MatMul", &[&down, y.name()], vec![], vec![channels, rows, columns]))
    }

    /// [`zero_padded_shortcut`](crate::ops::zero_padded_shortcut) as a 1 x 1 convolution with one 1 per channel that is
    /// there: exact, and known to every runtime.
    pub(crate) fn zero_padded_shortcut(
        &mut self,
        x: &Value,
        name: &str,
        stride: usize,
        channels_out: usize,
    ) -> Result<Value> {
        let (channels, height, width) = x.plane()?;
        let before = (channels_out - channels) / 2;
        let mut weight = vec![0f32; channels_out * channels];
        for channel in 0..channels {
            weight[(before + channel) * channels + channel] = 1.0;
        }
        let weight = Tensor::from_vec(weight, (channels_out, channels, 1, 1), &Device::Cpu)?;
        let weight = self.constant(&format!("{name}.shortcut.weight"), weight);
        let attributes = vec![
            ("kernel_shape", Attribute::Integers(vec![1; 2])),
            ("strides", Attribute::Integers(vec![stride; 2])),
        ];
        let shape = vec![channels_out, height.div_ceil(stride), width.div_ceil(stride)];
        Ok(self.node("Conv", &[x.name(), &weight], attributes, shape))
    }

    /// What is added from now on is of another network, whose constants may have the names of those before.
    pub(crate) fn begin_member(&mut self, number: usize) {
        self.prefix = format!("member_{number}.");
    }

    /// The output of the last node: the logits of the network that was added last.
    pub(crate) fn last(&self) -> Result<Value> {
        self.nodes
            .last()
            .map(|node| node.output.clone())
            .ok_or_else(|| candle_core::Error::msg("an empty graph"))
    }

    /// Adds the joint logits of members, each with its temperature and its share of the vote: the logarithms of the mean of
    /// their probabilities, or of the shares that predict each class, of which none is below `least`.
    pub(crate) fn vote(&mut self, members: &[(Value, f32, f32)], soft: bool, least: f32) -> Result<()> {
        let mut sum: Option<Value> = None;
        for (logits, temperature, share) in members {
            let shape = logits.shape.clone();
            let says = if soft {
                let axis = vec![("axis", Attribute::Integer(1))];
                let temperature = self.number(*temperature)?;
                let scaled = self.node("Div", &[logits.name(), &temperature], vec![], shape.clone());
                self.node("Softmax", &[scaled.name()], axis, shape.clone())
            } else {
                // Of logits: their probabilities may be equal where they are not.
                let over_classes =
                    vec![("axes", Attribute::Integers(vec![1])), ("keepdims", Attribute::Integer(1))];
                let largest = self.node("ReduceMax", &[logits.name()], over_classes, vec![1]);
                let is_largest = self.boolean("Equal", &[logits.name(), largest.name()], shape.clone());
                let to_float = vec![("to", Attribute::Integer(FLOAT as usize))];
                self.node("Cast", &[is_largest.name()], to_float, shape.clone())
            };
            let share = self.number(*share)?;
            let part = self.product(&says, &share);
            sum = Some(match sum {
                Some(sum) => self.node("Add", &[sum.name(), part.name()], vec![], shape),
                None => part,
            });
        }
        let Some(mut mean) = sum else { bail!("a vote without members") };
        let shape = mean.shape.clone();
        if !soft {
            let least = self.number(least)?;
            mean = self.node("Max", &[mean.name(), &least], vec![], shape.clone());
        }
        self.node("Log", &[mean.name()], vec![], shape);
        Ok(())
    }

    /// A node whose output is true or false.
    fn boolean(&mut self, operator: &'static str, inputs: &[&str], shape: Vec<usize>) -> Value {
        let output = self.node(operator, inputs, vec![], shape);
        self.nodes.last_mut().expect("it was added").is_boolean = true;
        output
    }

    /// Logits of an image: values of the last node's output.
    pub(crate) fn classes(&self) -> usize {
        self.nodes.last().map_or(0, |node| node.output.shape.iter().product())
    }

    /// All values of an image in one row, unless they are that already.
    pub(crate) fn flatten(&mut self, x: Value) -> Value {
        match x.shape.len() {
            1 => x,
            _ => self.node("Flatten", &[x.name()], vec![], vec![x.shape.iter().product()]),
        }
    }

    /// The bytes of a file with this graph, whose last node gives the logits. Equal graphs give equal bytes.
    ///
    /// # Errors
    /// When the graph has no node, or a constant is not of f32.
    pub fn into_bytes(mut self, description: &Description) -> Result<Vec<u8>> {
        let Some(last) = self.nodes.last_mut() else { bail!("a graph without nodes has no output") };
        last.output.name = LOGITS.to_owned();
        let values: usize = self.constants.iter().map(|(_, values)| values.elem_count()).sum();
        // What is not a value is names and numbers: some hundred bytes per node.
        let mut file =
            Message::with_capacity(4 * values + 512 * (self.nodes.len() + self.constants.len()) + 65_536);
        file.integer(1, IR_VERSION);
        file.bytes(2, "forebay");
        file.bytes(3, env!("CARGO_PKG_VERSION"));
        file.bytes(6, &description.text);
        file.message(7, |graph| self.write(graph, &description.name))?;
        file.message(8, |set| set.integer(2, OPERATOR_SET));
        for (key, value) in &description.properties {
            file.message(14, |property| {
                property.bytes(1, key);
                property.bytes(2, value);
            });
        }
        Ok(file.into_bytes())
    }

    fn write(&self, graph: &mut Message, name: &str) -> Result<()> {
        for node in &self.nodes {
            graph.message(1, |message| node.write(message));
        }
        graph.bytes(2, name);
        for (name, values) in &self.constants {
            if values.dtype() != DType::F32 {
                bail!("the constant {name} is of {:?}: expected f32", values.dtype());
            }
            let raw: Vec<u8> =
                values.flatten_all()?.to_vec1::<f32>()?.into_iter().flat_map(f32::to_le_bytes).collect();
            graph.message(5, |tensor| {
                values.dims().iter().for_each(|&side| tensor.integer(1, side as u64));
                tensor.integer(2, FLOAT);
                tensor.bytes(8, name);
                tensor.bytes(9, raw);
            });
        }
        graph.message(11, |input| self.images.write(FLOAT, input));
        let (last, others) = self.nodes.split_last().expect("there is an output");
        graph.message(12, |output| last.output.write(FLOAT, output));
        for node in others {
            graph.message(13, |value| node.output.write(if node.is_boolean { BOOL } else { FLOAT }, value));
        }
        Ok(())
    }
}

impl OnnxNode {
    fn write(&self, message: &mut Message) {
        self.inputs.iter().for_each(|input| message.bytes(1, input));
        message.bytes(2, &self.output.name);
        message.bytes(3, &self.output.name);
        message.bytes(4, self.operator);
        for (name, attribute) in &self.attributes {
            message.message(5, |message| {
                message.bytes(1, name);
                // Each kind has a field of its own, and `AttributeType` says which it is.
                match attribute {
                    Attribute::Float(value) => {
                        message.float(2, *value);
                        message.integer(20, 1);
                    }
                    Attribute::Integer(value) => {
                        message.integer(3, *value as u64);
                        message.integer(20, 2);
                    }
                    Attribute::Integers(values) => {
                        values.iter().for_each(|&value| message.integer(8, value as u64));
                        message.integer(20, 7);
                    }
                }
            });
        }
    }
}

impl Value {
    /// Its name and type: elements of a type in a shape whose first side is the batch.
    fn write(&self, element: u64, message: &mut Message) {
        message.bytes(1, &self.name);
        message.message(2, |kind| {
            kind.message(1, |tensor| {
                tensor.integer(1, element);
                tensor.message(2, |shape| {
                    shape.message(1, |side| side.bytes(2, "batch"));
                    for &side in &self.shape {
                        shape.message(1, |message| message.integer(1, side as u64));
                    }
                });
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use forebay_datasets::seed::Seed;

    use super::*;
    use crate::models::{self, Head, NAMES};
    use crate::params::{Builder, Mode, ParamStore, Pass};
    use crate::protobuf::tests::{Field, fields};

    fn exported(name: &str, head: &Head, side: impl Fn(usize) -> usize) -> Graph {
        let mut store = ParamStore::new(Device::Cpu);
        let network = models::build(name, head, &mut Builder::new(&mut store, Seed(1))).expect("memory");
        let network = network.expect("a known name");
        let mut graph = Graph::new(side(network.side_min()));
        network.export(&Pass::new(&store, Mode::Evaluate), &mut graph).expect("large enough images");
        graph
    }

    /// Every input is there before its node, and no name is given twice.
    fn check(graph: &Graph) {
        let mut shapes: BTreeMap<&str, &[usize]> = BTreeMap::from([(IMAGES, graph.images.shape())]);
        for (name, values) in &graph.constants {
            assert!(shapes.insert(name, values.dims()).is_none(), "{name} is there twice");
        }
        let mut taken: Vec<&str> = Vec::new();
        for node in &graph.nodes {
            for input in &node.inputs {
                assert!(shapes.contains_key(input.as_str()), "{} takes {input}", node.output.name);
                taken.push(input);
            }
            assert!(!node.output.shape.contains(&0), "{} is empty", node.output.name);
            assert!(shapes.insert(&node.output.name, &node.output.shape).is_none(), "{}", node.output.name);
        }
        for name in shapes.keys() {
            let is_last = graph.nodes.last().is_some_and(|node| node.output.name == *name);
            assert!(is_last || taken.contains(name), "nothing takes {name}");
        }
    }

    #[test]
    fn every_network_is_a_whole_graph_at_its_smallest_size_and_at_an_odd_one() {
        for name in NAMES {
            // The layers behind the grid of VGG hold a hundred million values, and are the same in each of them.
            let sides: &[fn(usize) -> usize] = match name.strip_prefix("vgg") {
                Some(which) if !["11", "13_bn"].contains(&which) => &[],
                Some(_) => &[|least| least + 57],
                None => &[|least| least, |least| least + 58],
            };
            for side in sides {
                let graph = exported(name, &Head::linear(3), side);
                check(&graph);
                let last = graph.nodes.last().expect("a node");
                assert_eq!((last.operator, last.output.shape()), ("Gemm", &[3][..]), "{name}");
                let norms = graph.nodes.iter().any(|node| node.operator == "BatchNormalization");
                assert!(!norms, "norms are folded");
            }
        }
    }

    #[test]
    fn the_file_has_the_fields_of_the_format() {
        let head =
            Head { width: Some(5), activation: Activation::Gelu, dropout: Some(0.5), ..Head::linear(4) };
        let description = Description {
            name: "small".to_owned(),
            text: "A text.".to_owned(),
            properties: vec![("classes".to_owned(), "[\"é\"]".to_owned())],
        };
        let graph = exported("small", &head, |_| 9);
        check(&graph);
        let bytes = graph.clone().into_bytes(&description).expect("bytes");
        assert_eq!(bytes, graph.clone().into_bytes(&description).expect("bytes"));
        let all = |fields: &[(u64, Field)], number: u64| -> Vec<Field> {
            fields.iter().filter(|(found, _)| *found == number).map(|(_, field)| field.clone()).collect()
        };
        let model = fields(&bytes);
        assert_eq!(all(&model, 1), [Field::Integer(8)]);
        assert_eq!((all(&model, 2)[0].text(), all(&model, 6)[0].text()), ("forebay", "A text."));
        assert_eq!(fields(all(&model, 8)[0].bytes()), [(2, Field::Integer(17))]);
        let property = fields(all(&model, 14)[0].bytes());
        assert_eq!((property[0].1.text(), property[1].1.text()), ("classes", "[\"é\"]"));

        let written = fields(all(&model, 7)[0].bytes());
        assert_eq!(all(&written, 2)[0].text(), "small");
        assert_eq!(all(&written, 1).len(), graph.nodes.len());
        assert_eq!(all(&written, 13).len(), graph.nodes.len() - 1);
        // The first node: its inputs, output, operator and its attributes in the order of names.
        let node = fields(all(&written, 1)[0].bytes());
        let inputs: Vec<String> = all(&node, 1).iter().map(|input| input.text().to_owned()).collect();
        assert_eq!(inputs, ["images", "conv1.weight", "conv1.bias"]);
        assert_eq!((all(&node, 2)[0].text(), all(&node, 4)[0].text()), ("Conv_0", "Conv"));
        let pads = fields(all(&node, 5)[2].bytes());
        assert_eq!(pads[0].1.text(), "pads");
        assert_eq!(
            all(&pads, 8),
            [Field::Integer(1), Field::Integer(1), Field::Integer(1), Field::Integer(1)]
        );
        // The first constant: sides, f32, name, values.
        let weight = fields(all(&written, 5)[0].bytes());
        assert_eq!(all(&weight, 1).iter().map(Field::integer).collect::<Vec<_>>(), [32, 3, 3, 3]);
        assert_eq!((all(&weight, 2)[0].integer(), all(&weight, 9)[0].bytes().len()), (1, 4 * 32 * 27));
        // Input and output: the batch by its name, and numbers.
        let value = |field: u64| -> (String, Vec<Field>) {
            let value = fields(all(&written, field)[0].bytes());
            let tensor = fields(fields(value[1].1.bytes())[0].1.bytes());
            assert_eq!(tensor[0], (1, Field::Integer(1)));
            let sides = fields(tensor[1].1.bytes());
            let side = |(_, side): &(u64, Field)| fields(side.bytes())[0].1.clone();
            (value[0].1.text().to_owned(), sides.iter().map(side).collect())
        };
        let batch = || Field::Bytes(b"batch".to_vec());
        let (three, nine) = (Field::Integer(3), Field::Integer(9));
        assert_eq!(value(11), ("images".to_owned(), vec![batch(), three, nine.clone(), nine]));
        assert_eq!(value(12), ("logits".to_owned(), vec![batch(), Field::Integer(4)]));
    }

    #[test]
    fn a_window_of_ceil_mode_is_padding_behind_the_image() {
        let pads = |side: usize, padding: usize, ceil: bool| {
            let mut graph = Graph::new(side);
            let images = graph.images();
            let pooling = Pooling { window: 3, stride: 2, padding, ceil };
            let y = graph.max_pool(&images, pooling).expect("it fits");
            let pads = graph.nodes[0].attributes.iter().find(|(name, _)| *name == "pads");
            let Some((_, Attribute::Integers(pads))) = pads else { panic!("there are pads") };
            (y.shape()[1], pads.clone())
        };
        assert_eq!(pads(8, 0, false), (3, vec![0, 0, 0, 0]));
        assert_eq!(pads(8, 0, true), (4, vec![0, 0, 1, 1]));
        assert_eq!(pads(9, 0, true), (4, vec![0, 0, 0, 0]));
        assert_eq!(pads(7, 1, true), (4, vec![1, 1, 1, 1]));
        assert_eq!(pads(8, 1, true), (5, vec![1, 1, 2, 2]));
    }
}
