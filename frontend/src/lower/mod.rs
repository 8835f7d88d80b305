//! Lowering: a parsed Dockerfile to a build graph.
