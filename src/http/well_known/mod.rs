//! Public documents: the keys and the metadata.

pub mod jwks;
pub mod metadata;

pub use metadata::MetadataDocument;
