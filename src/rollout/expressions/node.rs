//! A checked expression: every operation is on operands of the right types.
//!
//! Absent: positions in the source. Faults are found before; see `check`.

use jiff::{SignedDuration, Timestamp};

use super::types::{Field, RootVariable};

/// A node of a checked expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// A value that is written in the expression.
    Literal(Literal),
    /// A variable.
    Variable(RootVariable),
    /// The variable of a comprehension: the number of comprehensions around that one.
    Local(usize),
    /// A field of a record.
    Field(Box<Self>, Field),
    /// A value of a map, or an item of a list.
    Index(Box<Self>, Box<Self>),
    /// Whether a field or a key is there.
    Has(Box<Self>),
    /// A list.
    List(Vec<Self>),
    /// `!`
    Not(Box<Self>),
    /// `&&`
    And(Vec<Self>),
    /// `||`
    Or(Vec<Self>),
    /// `?:`
    If(Box<[Self; 3]>),
    /// `==`; `!=` is its negation.
    Equal(Box<[Self; 2]>),
    /// An order of two values.
    Order(Order, Box<[Self; 2]>),
    /// A calculation with two values.
    Arithmetic(Arithmetic, Box<[Self; 2]>),
    /// `-`
    Negate(Box<Self>),
    /// Whether a list has an item, or a map a key.
    In(Box<[Self; 2]>),
    /// A function.
    Call(Function, Vec<Self>),
    /// A comprehension over a list, or over the keys of a map.
    Comprehension(Comprehension, Box<[Self; 2]>),
}

/// A value that is written in an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Double(f64),
    /// A text.
    String(String),
    /// A moment.
    Timestamp(Timestamp),
    /// A time between two moments.
    Duration(SignedDuration),
    /// `null`
    Null,
}

/// An order of two values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A calculation with two values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Arithmetic {
    /// `+`, also of texts.
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Remainder,
}

/// A function.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Function {
    /// The number of characters, items or keys.
    Size,
    /// Whether a text holds another.
    Contains,
    /// Whether a text begins with another.
    StartsWith,
    /// Whether a text ends with another.
    EndsWith,
    /// The parts of a text between a separator.
    Split,
    /// The text from a character on.
    Substring,
    /// A whole number from a number or text.
    Int,
    /// A number from a number or text.
    Double,
    /// A text.
    String,
    /// A duration from a text.
    Duration,
    /// A timestamp from a text.
    Timestamp,
}

/// A comprehension.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Comprehension {
    /// Whether the condition is true of all items.
    All,
    /// Whether it is true of an item.
    Exists,
    /// Whether it is true of exactly one item.
    ExistsOne,
    /// The items of which it is true.
    Filter,
    /// The results for all items.
    Map,
}
