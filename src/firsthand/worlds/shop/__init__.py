"""A web shop in WebShop's grammar: products and reward, a generator, a search engine, and the pages."""
