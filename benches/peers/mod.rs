//! Measurements: figures, candidates, and the page that is made of them.

mod bars;
mod candidate;
mod configurations;
mod figures;
mod idle;
mod limits;
mod load;
mod machine;
pub(crate) mod measure;
pub(crate) mod options;
mod page;
mod plot;
mod together;
pub(crate) mod upstream;
mod watching;
mod work;
